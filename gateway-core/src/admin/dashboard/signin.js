// The question for the admin token. There is no way around it: without one the page has nothing to
// show.

import { onTokenNeeded, setToken } from './api.js';
import { h } from './dom.js';

export function askForTokens() {
  onTokenNeeded((refused) => new Promise((resolve) => {
    const input = h('input', { type: 'password', id: 'token', autocomplete: 'off', required: true, 'aria-describedby': 'token-help' });
    const form = h('form', {
      onsubmit: (event) => {
        event.preventDefault();
        const token = input.value.trim();
        if (!token) return;
        setToken(token);
        dialog.close();
        dialog.remove();
        resolve();
      },
    },
    h('h2', { id: 'token-title' }, 'Admin token'),
    refused && h('p.refused', { role: 'alert' }, 'The gateway does not know that token.'),
    h('p', { id: 'token-help' }, 'This gateway asks who you are. The token stays in this tab and is gone when you close it.'),
    h('label.field', {}, h('span', {}, 'Token'), input),
    h('div.actions', {}, h('button.primary', { type: 'submit' }, 'Continue')));
    const dialog = h('dialog', { 'aria-labelledby': 'token-title', oncancel: (event) => event.preventDefault() }, form);
    document.body.append(dialog);
    dialog.showModal();
  }));
}

// The question for the admin token. There is no way around it: without one the page has nothing to
// show.

import { onTokenNeeded, setToken } from './api.js';
import { h, setText } from './dom.js';
import { knowsWho } from './state.js';

/** Other characters cannot stand in a header, and no request would ever leave with them. */
const SENDABLE = /^[\x20-\x7e]+$/;

export function askForTokens() {
  onTokenNeeded((refused) => new Promise((resolve) => {
    let done = false;
    const wrong = h('p.refused', { role: 'alert' }, refused && 'The gateway does not know that token.');
    const input = h('input', { type: 'password', id: 'token', autocomplete: 'off', required: true, 'aria-describedby': 'token-help' });
    const form = h('form', {
      onsubmit: (event) => {
        event.preventDefault();
        const token = input.value.trim();
        if (!token) return;
        if (!SENDABLE.test(token)) {
          setText(wrong, 'That is no token: it has characters other than plain letters, digits and signs.');
          input.focus();
          input.select();
          return;
        }
        done = true;
        setToken(token);
        dialog.close();
        dialog.remove();
        // Another token may be somebody else's, and what is shown was built for who it was before.
        if (knowsWho()) location.reload();
        else resolve();
      },
    },
    h('h2', { id: 'token-title' }, 'Admin token'),
    wrong,
    h('p', { id: 'token-help' }, 'This gateway asks who you are. The token stays in this tab and is gone when you close it.'),
    h('label.field', {}, h('span', {}, 'Token'), input),
    h('div.actions', {}, h('button.primary', { type: 'submit' }, 'Continue')));
    const dialog = h('dialog', {
      'aria-labelledby': 'token-title',
      oncancel: (event) => event.preventDefault(),
      // A second Escape closes it all the same.
      onclose: () => { if (!done) dialog.showModal(); },
    }, form);
    document.body.append(dialog);
    dialog.showModal();
  }));
}

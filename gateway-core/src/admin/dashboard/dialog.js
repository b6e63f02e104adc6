// Asking before something is done. The browser's own <dialog> traps the focus, closes on Escape, and
// gives the focus back.

import { fill, h } from './dom.js';

/**
 * Fulfilled with the entered values, or `null` when the operator thought better of it.
 * `fields`: `{ name, label, control }`, whose values are read when the action is taken.
 */
export function ask({ title, text, fields = [], action, tone = 'primary' }) {
  return new Promise((resolve) => {
    let answer = null;
    const form = h('form', {
      onsubmit: (event) => {
        event.preventDefault();
        answer = Object.fromEntries(fields.map(({ name, control }) => [name, valueOf(control)]));
        dialog.close();
      },
    });
    fill(form,
      h('h2', { id: 'dialog-title' }, title),
      [text].flat().map((part) => (typeof part === 'string' ? h('p', {}, part) : part)),
      fields.map(({ label, control }) => (label ? h('label.field', {}, h('span', {}, label), control) : control)),
      h('div.actions', {},
        h('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'),
        h(`button.${tone}`, { type: 'submit' }, action)));
    const dialog = h('dialog', { 'aria-labelledby': 'dialog-title', onclose: () => { dialog.remove(); resolve(answer); } }, form);
    document.body.append(dialog);
    dialog.showModal();
  });
}

function valueOf(control) {
  if (control.value !== undefined) return control.value.trim();
  // A group of radio buttons.
  return control.querySelector('input:checked')?.value ?? null;
}

/** One of several, each explained. */
export function radios(name, options, value) {
  return h('div.radios', { role: 'radiogroup' }, options.map(([key, label, explanation]) =>
    h('label', {}, h('input', { type: 'radio', name, value: key, checked: key === value }),
      h('span', {}, h('strong', {}, label), h('span.soft', {}, explanation)))));
}

// Small parts that all pages share.

import { h, setText } from './dom.js';
import { shortDid, shorten } from './format.js';
import { icon } from './icons.js';
import { href } from './router.js';
import { WHY_NOT, mayOperate } from './state.js';

/** Says something to screen readers, politely. */
export function announce(text) {
  document.getElementById('announcer').textContent = text;
}

/** The heading of a page; focus goes there when the page opens. */
export function heading(title, ...beside) {
  return h('div.heading', {}, h('h1', { tabindex: '-1' }, title), ...beside);
}

/** A framed part of a page. */
export function panel(title, ...children) {
  return h('section.panel', { 'aria-label': title }, h('h2', {}, title), ...children);
}

/** A state by word and shape; the colour only repeats it. `tone`: fine, warning, critical, quiet. */
export function badge(word, tone = 'quiet') {
  return h(`span.badge.${tone}`, {}, word);
}

export const empty = (text) => h('p.empty', {}, text);

/** What went wrong with a request, and a way to ask again. */
export function failure(error, again) {
  return h('div.note.critical', { role: 'alert' }, icon('critical'),
    h('div', {}, h('strong', {}, 'This could not be loaded: '), error.message, reasonList(error.reasons)),
    again && h('button', { type: 'button', onclick: again }, 'Try again'));
}

export function reasonList(reasons) {
  if (!reasons?.length) return null;
  return h('ul.reasons', {}, reasons.map((reason) => h('li', {}, reason)));
}

/** What came of something the operator did; stays until the next, or until the page ends. */
export function outcome(place, tone, text, reasons) {
  place.replaceChildren(h(`div.note.${tone}`, {}, icon(tone === 'fine' ? 'fine' : 'critical'), h('div', {}, text, reasonList(reasons))));
  // The button may be far below.
  place.scrollIntoView({ block: 'nearest' });
  announce(text);
}

/** Does something and says what came of it. True when it was done. */
export async function attempt(place, doing, done) {
  try {
    const answer = await doing();
    outcome(place, 'fine', done(answer));
    return true;
  } catch (error) {
    outcome(place, 'critical', error.message, error.reasons);
    return false;
  }
}

/** Copies a text; says so in its own place. */
export function copyButton(text, what) {
  const button = h('button.copy', { type: 'button', title: `Copy ${what}`, 'aria-label': `Copy ${what}` }, icon('copy'));
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without the clipboard, as on plain HTTP from elsewhere, the text is at least selected.
      const selection = getSelection();
      selection.selectAllChildren(button.previousElementSibling ?? button.parentElement);
    }
    button.classList.add('done');
    announce(`Copied ${what}`);
    setTimeout(() => button.classList.remove('done'), 1200);
  });
  return button;
}

/** An agent, by its short name, with the way to its page. */
export function agentLink(did) {
  if (!did) return h('span.none', {}, '–');
  return h('span.did', {}, h('a', { href: href(['agents', did]), title: did }, shortDid(did)), copyButton(did, 'DID'));
}

/** A text that somebody else chose: shortened, isolated so that it cannot turn the line around. */
export function foreign(text, room = 40) {
  if (text === null || text === undefined || text === '') return h('span.none', {}, '–');
  return h('bdi', { title: text }, shorten(String(text), Math.ceil(room * 0.6), Math.floor(room * 0.4)));
}

/** A button that changes the gateway; without the scope it is off and says why. */
export function operateButton(label, act, kind = '') {
  const allowed = mayOperate();
  return h(`button${kind && `.${kind}`}`, { type: 'button', disabled: !allowed, title: allowed ? null : WHY_NOT, onclick: act }, label);
}

/** Beside such buttons, for who cannot hover. */
export const operateNote = () => (mayOperate() ? null : h('p.why-not', {}, icon('info'), WHY_NOT));

/** Name and value pairs. */
export function facts(pairs) {
  return h('dl.facts', {}, pairs.filter(Boolean).map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
}

/** A number with its name and a note, each made of what is shown; the name leads to a page, if there is one. */
export function figure([label, value, note, page]) {
  const number = h('span.number');
  const small = h('span.soft');
  const element = h('div.figure', {}, page ? h('a', { href: href([page]) }, label) : h('span.label', {}, label), number, small);
  const show = (shown) => {
    setText(number, value(shown));
    setText(small, note(shown));
  };
  return { element, show };
}

/** A labelled control. */
export function field(label, control) {
  return h('label.field', {}, h('span', {}, label), control);
}

/**
 * A search box; `/` leads to the first of a page. It searches while one types, or, where only whole
 * names are found, once one is done.
 */
export function searchBox(label, value, changed, whole = false) {
  const input = h('input', { type: 'search', placeholder: label, 'aria-label': label, value, autocomplete: 'off', spellcheck: 'false', 'data-search': true });
  let timer;
  if (whole) input.addEventListener('change', () => changed(input.value.trim()));
  else input.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(() => changed(input.value.trim()), 200);
  });
  return h('span.search', {}, icon('search'), input, h('kbd', { 'aria-hidden': 'true' }, '/'));
}

/** One of several; the first choice may be "all". */
export function choice(label, options, value, changed) {
  const select = h('select', { onchange: () => changed(select.value) },
    options.map(([key, text]) => h('option', { value: key, selected: key === value }, text)));
  return field(label, select);
}

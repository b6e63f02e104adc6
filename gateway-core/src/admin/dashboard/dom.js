// Building elements. Every string becomes text: agents choose their names, and some choose badly.
//
// There is no way from here to markup, and none of the other modules has one of its own.

const SVG = 'http://www.w3.org/2000/svg';

/**
 * An element: `h('p.note', { id: 'x', onclick }, 'text', child, [more])`.
 * Properties are attributes, but for functions, which listen. `null` and `false` are left out.
 */
export function h(spec, properties = {}, ...children) {
  const [tag, ...classes] = spec.split('.');
  const element = document.createElement(tag || 'div');
  if (classes.length) element.className = classes.join(' ');
  return filled(element, properties, children);
}

/** The same for SVG. */
export function s(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...present(children));
  return element;
}

/** Children as `append` takes them. */
export function present(children) {
  return [children].flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Replaces what is in an element. */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
  return element;
}

const drawn = new WeakMap();

/** Builds what is in an element anew only when what it shows has changed: it may hold the focus. */
export function refill(element, shown, build) {
  const state = JSON.stringify(shown) ?? '';
  if (drawn.get(element) === state) return;
  drawn.set(element, state);
  fill(element, build());
}

/** Sets a text only where it differs: an unchanged one costs no layout, and keeps a selection. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets or removes an attribute, where it differs. */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

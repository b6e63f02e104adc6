// Building elements. Every string becomes text: agents choose their names and words, and some choose badly.

/**
 * An element: `h('p.note', { id: 'x', onclick }, 'text', child)`. Properties are attributes, but for functions,
 * which listen. `null` and `false` are left out.
 */
export function h(spec, properties = {}, ...children) {
  const [tag, ...classes] = spec.split('.');
  const element = document.createElement(tag);
  if (classes.length > 0) element.className = classes.join(' ');
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Sets a text only where it differs, so that nothing is read out twice. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A DID that can be told from others at a glance. */
export function short(did) {
  return did.length > 24 ? `${did.slice(0, 12)}…${did.slice(-6)}` : did;
}

/** A badge of one of the five states. */
export function showState(element, state) {
  element.dataset.state = state;
  setText(element, state);
}

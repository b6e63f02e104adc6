// Hash routes: `#/agents/did:key:z6Mk…?search=x`. The hash never leaves the browser, so the gateway
// serves one page and its logs see no names.

/** The present route: its segments, decoded, and its query. */
export function route() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  return { segments: path.split('/').filter(Boolean).map(decoded), query: new URLSearchParams(query) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // A stray percent sign is no reason to show nothing.
  }
}

/** The address of a page. */
export function href(segments, query = {}) {
  const path = segments.map(encodeURIComponent).join('/');
  const filled = Object.entries(query).filter(([, value]) => value);
  const text = new URLSearchParams(filled).toString();
  return `#/${path}${text ? `?${text}` : ''}`;
}

/** Writes a query into the address without opening the page anew. */
export function keep(segments, query) {
  history.replaceState(null, '', href(segments, query));
}

/** A link that the gateway gave, if it leads to one of these pages and nowhere else. */
export const ownLink = (link) => (typeof link === 'string' && link.startsWith('#/') ? link : null);

// Canonical JSON of a text: the bytes that a signature covers.

import { canonical, parse } from './json.js';

/** The canonical form of a JSON text; throws a SyntaxError for anything else. */
export function canonicalize(text) {
  try {
    return canonical(parse(text));
  } catch (error) {
    throw new SyntaxError(`not json as the protocol reads it: ${error.message}`, { cause: error });
  }
}

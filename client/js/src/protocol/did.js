// Names of agents: `did:key` in both of its spellings, and the 32 bytes behind them.
//
// An agent is its key; `key` (hexadecimal) is what to compare and to look up by, however the DID is spelled.

import { DidError } from '../errors.js';
import { fromBase58, toBase58 } from './base58.js';
import { toHex } from './bytes.js';
import { hasSmallOrder, isPoint, withEd25519 } from './ed25519.js';

/** The reference's reserved name of a gateway; it carries no key. */
export const REFERENCE_GATEWAY_DID = 'did:key:gateway';

const PREFIX = 'did:key:z';
/** What the reference puts between the multibase prefix and the bare key. */
const LEGACY_PREFIX = 'did:key:z6Mk';
const KEY_BYTES = 32;
/** How many keys are kept ready to verify with. */
const REMEMBERED = 1024;

/** The key bytes that a DID names; throws a DidError. The curve is not looked at. */
export function parseDid(did) {
  if (typeof did !== 'string' || !did.startsWith(PREFIX)) {
    throw new DidError('not_did_key', 'not a did:key in base58btc');
  }
  // The two cannot be confused: as numbers they are apart (the vectors' README says how far).
  const standard = fromBase58(did.slice(PREFIX.length), KEY_BYTES + 2);
  if (standard?.[0] === 0xed && standard[1] === 0x01) return standard.subarray(2);
  const legacy = did.startsWith(LEGACY_PREFIX) && fromBase58(did.slice(LEGACY_PREFIX.length), KEY_BYTES);
  if (!legacy) throw new DidError('not_ed25519', 'not the base58btc of a 32-byte ed25519 key');
  return legacy;
}

/** The W3C spelling. */
export function didOf(key) {
  return PREFIX + toBase58(Uint8Array.from([0xed, 0x01, ...key]));
}

/** The reference's spelling. */
export function legacyDidOf(key) {
  return LEGACY_PREFIX + toBase58(key);
}

/** What agents are compared and looked up by: the key in hexadecimal; throws a DidError. */
export function keyOf(did) {
  return toHex(parseDid(did));
}

/** Whether two DIDs name the same agent. What is no DID names none. */
export function isSameAgent(a, b) {
  try {
    return keyOf(a) === keyOf(b);
  } catch {
    return false;
  }
}

/** By key, so that both spellings share one; the oldest goes first. */
const ready = new Map();

/** A DID's key, ready to verify with; throws a DidError. */
export async function verifyingKey(did) {
  const bytes = parseDid(did);
  const name = toHex(bytes);
  const known = ready.get(name);
  if (known) return known;
  if (hasSmallOrder(bytes)) throw new DidError('weak_key', 'a small-order key');
  if (!isPoint(bytes)) throw new DidError('not_a_point', 'not a point of the curve');
  const key = await withEd25519((webCrypto) =>
    webCrypto.importKey('raw', bytes, { name: 'Ed25519' }, true, ['verify']),
  );
  if (ready.size >= REMEMBERED) ready.delete(ready.keys().next().value);
  ready.set(name, key);
  return key;
}

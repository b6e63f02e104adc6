// Ed25519 by WebCrypto, made strict.
//
// WebCrypto (RFC 8032 with the cofactorless check of BoringSSL and OpenSSL) leaves open what a signature
// must not be: this module refuses an S beyond the group's order, points of small order, points that are
// not on the curve and second encodings of a point, by a few lines of arithmetic of its own. No secret goes
// through that arithmetic. `did`, `identity` and `envelope` call.

import { CryptoUnavailable } from '../errors.js';

/** The prime of the field. */
const P = 2n ** 255n - 19n;
/** The order of the group. */
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
/** The curve's constant: -121665/121666. */
const D = 37095705934669439343138083508754565189542113879843219016388785533085940283555n;

/** The y coordinates of the eight points of small order. */
const SMALL_ORDER = new Set([
  0n,
  1n,
  P - 1n,
  0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n,
  0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n,
]);

/** WebCrypto, or an error that says what is missing. */
export function subtle() {
  const found = globalThis.crypto?.subtle;
  if (found) return found;
  throw new CryptoUnavailable(
    globalThis.isSecureContext === false
      ? 'there is no WebCrypto: browsers have it on https:// pages and on localhost alone'
      : 'there is no WebCrypto: it takes a current browser or Node 20',
  );
}

/** Runs `work`, and tells an engine without Ed25519 from other faults. */
export async function withEd25519(work) {
  try {
    return await work(subtle());
  } catch (error) {
    if (error?.name !== 'NotSupportedError') throw error;
    throw new CryptoUnavailable(
      "this engine's WebCrypto has no Ed25519: it takes Chrome 137, Firefox 129, Safari 17 or Node 20",
      { cause: error },
    );
  }
}

/** Whether 32 bytes are the one encoding of a point of the curve. */
export function isPoint(bytes) {
  const y = littleEndian(bytes) & (2n ** 255n - 1n);
  if (y >= P) return false;
  // x^2 = (y^2 - 1) / (d y^2 + 1) must have a root. Numerator times denominator has one iff the quotient has.
  const square = (y * y) % P;
  const product = ((square + P - 1n) * ((D * square + 1n) % P)) % P;
  // x = 0 has one sign only.
  if (product === 0n) return bytes[31] >> 7 === 0;
  return power(product, (P - 1n) / 2n) === 1n;
}

/** Whether 32 bytes encode a point of small order, in whichever encoding. */
export function hasSmallOrder(bytes) {
  return SMALL_ORDER.has((littleEndian(bytes) & (2n ** 255n - 1n)) % P);
}

/** Whether `signature` (64 bytes) is that of the key (32 bytes, a point of large order) over `message`. */
export async function verifyStrict(key, message, signature) {
  if (littleEndian(signature.subarray(32)) >= L || hasSmallOrder(signature.subarray(0, 32))) return false;
  return withEd25519((webCrypto) => webCrypto.verify({ name: 'Ed25519' }, key, signature, message));
}

function littleEndian(bytes) {
  let hex = '0x';
  for (let at = bytes.length - 1; at >= 0; at -= 1) hex += bytes[at].toString(16).padStart(2, '0');
  return BigInt(hex);
}

function power(base, exponent) {
  let result = 1n;
  for (let rest = exponent, square = base; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % P;
    square = (square * square) % P;
  }
  return result;
}

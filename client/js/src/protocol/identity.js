// A key pair with its DID: who this agent is.
//
// The private half stays inside WebCrypto, and may be made so that not even the page can take it out.

import { KeyError } from '../errors.js';
import { toBase58 } from './base58.js';
import { fromBase64, fromBase64Url, sameBytes, toBase64, toBase64Url, toHex } from './bytes.js';
import { didOf, legacyDidOf } from './did.js';
import { subtle, withEd25519 } from './ed25519.js';

const ALGORITHM = { name: 'Ed25519' };
/** PKCS#8 of an Ed25519 key, version 1 (RFC 8410): this, then the 32 bytes of the seed. */
const PKCS8_HEAD = Uint8Array.from([
  0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
]);

export class Identity {
  #privateKey;
  #publicKey;

  /** Only the functions below make one. */
  constructor(privateKey, publicBytes, did) {
    this.#privateKey = privateKey;
    this.#publicKey = publicBytes;
    this.did = did;
    Object.freeze(this);
  }

  /** A fresh key pair. With `extractable: false` it can be kept in IndexedDB and used, and never read. */
  static async generate({ extractable = true } = {}) {
    const pair = await withEd25519((webCrypto) =>
      webCrypto.generateKey(ALGORITHM, extractable, ['sign', 'verify']),
    );
    return Identity.fromKeyPair(pair);
  }

  /** The identity of a WebCrypto key pair: what `keyPair` gave, from IndexedDB for one. */
  static async fromKeyPair({ privateKey, publicKey }) {
    if (privateKey?.algorithm?.name !== 'Ed25519' || publicKey?.algorithm?.name !== 'Ed25519') {
      throw new KeyError('wrong_key', 'not a key pair of Ed25519');
    }
    const bytes = new Uint8Array(await subtle().exportKey('raw', publicKey));
    const identity = new Identity(privateKey, bytes, didOf(bytes));
    await identity.#prove(publicKey);
    return identity;
  }

  /** The identity of a private JWK (RFC 8037: kty OKP, crv Ed25519, with d and x). */
  static async fromJwk(jwk, { extractable = true } = {}) {
    const seed = jwk?.kty === 'OKP' && jwk.crv === 'Ed25519' && fromBase64Url(String(jwk.d));
    if (!seed || seed.length !== 32) throw new KeyError('wrong_key', 'not a private JWK of Ed25519');
    const identity = await Identity.fromSeed(seed, { extractable });
    if (jwk.x !== undefined && jwk.x !== toBase64Url(identity.publicKey)) {
      throw new KeyError('wrong_key', "the JWK's public half is not that of its private half");
    }
    return identity;
  }

  /** The identity of a PKCS#8 private key: PEM, as `openssl genpkey -algorithm ed25519` writes it, or DER. */
  static async fromPkcs8(pkcs8, { extractable = true } = {}) {
    const der = typeof pkcs8 === 'string' ? derOf(pkcs8) : new Uint8Array(pkcs8);
    const isOne = der !== null && der.length >= 48 && sameBytes(der.subarray(5, 16), PKCS8_HEAD.subarray(5));
    if (!isOne) throw new KeyError('wrong_key', 'not a PKCS#8 private key of Ed25519');
    return Identity.fromSeed(der.subarray(16, 48), { extractable });
  }

  /** The identity of an RFC 8032 private key: 32 bytes. */
  static async fromSeed(seed, { extractable = true } = {}) {
    if (seed.length !== 32) throw new KeyError('wrong_key', 'a seed has 32 bytes');
    const der = Uint8Array.from([...PKCS8_HEAD, ...seed]);
    return withEd25519(async (webCrypto) => {
      // The public half is to be had by way of a JWK alone.
      const open = await webCrypto.importKey('pkcs8', der, ALGORITHM, true, ['sign']);
      const { x } = await webCrypto.exportKey('jwk', open);
      const bytes = fromBase64Url(x);
      const kept = extractable ? open : await webCrypto.importKey('pkcs8', der, ALGORITHM, false, ['sign']);
      return new Identity(kept, bytes, didOf(bytes));
    });
  }

  /** The same key, in the reference's spelling. */
  withLegacyDid() {
    return new Identity(this.#privateKey, this.#publicKey, legacyDidOf(this.#publicKey));
  }

  /** The 32 bytes of the public key. */
  get publicKey() {
    return this.#publicKey.slice();
  }

  /** The public key in base58btc, as in REGISTER. */
  get publicKeyBase58() {
    return toBase58(this.#publicKey);
  }

  /** What agents are compared by: the public key in hexadecimal. */
  get key() {
    return toHex(this.#publicKey);
  }

  /** The WebCrypto keys, to be kept in IndexedDB. */
  async keyPair() {
    const publicKey = await subtle().importKey('raw', this.#publicKey, ALGORITHM, true, ['verify']);
    return { privateKey: this.#privateKey, publicKey };
  }

  /** The private key as a JWK: a secret. */
  async toJwk() {
    const { kty, crv, d, x } = await this.#export('jwk');
    return { kty, crv, d, x };
  }

  /** The private key as PKCS#8 PEM: a secret. */
  async toPkcs8() {
    const base64 = toBase64(new Uint8Array(await this.#export('pkcs8')));
    return `-----BEGIN PRIVATE KEY-----\n${base64}\n-----END PRIVATE KEY-----\n`;
  }

  /** Signs some bytes; the result is base64, as it goes on the wire. */
  async sign(bytes) {
    return toBase64(new Uint8Array(await subtle().sign(ALGORITHM, this.#privateKey, bytes)));
  }

  async #export(format) {
    if (!this.#privateKey.extractable) {
      throw new KeyError('not_extractable', 'this identity was made so that it cannot be read');
    }
    return subtle().exportKey(format, this.#privateKey);
  }

  /** Two halves that were stored apart might not belong together. */
  async #prove(publicKey) {
    const bytes = Uint8Array.of(1);
    const signature = await subtle().sign(ALGORITHM, this.#privateKey, bytes);
    if (!(await subtle().verify(ALGORITHM, publicKey, signature, bytes))) {
      throw new KeyError('wrong_key', 'the two halves do not belong together');
    }
  }
}

function derOf(pem) {
  const found = /-----BEGIN PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END PRIVATE KEY-----/.exec(pem);
  return found && fromBase64(found[1].replace(/\s/g, ''));
}

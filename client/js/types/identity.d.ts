// Who an agent is: a key pair, and the DIDs that name it.

/** WebCrypto's key and key pair, named here so that these types need no DOM. */
type Key = import('./platform.js').PlatformKey;

export interface KeyPair {
  privateKey: Key;
  publicKey: Key;
}

/** A private JWK of Ed25519 (RFC 8037). */
export interface PrivateJwk {
  kty?: string;
  crv?: string;
  d?: string;
  x?: string;
}

export interface KeyOptions {
  /** Whether the private half can be read again. Default: true. */
  extractable?: boolean;
}

export declare class Identity {
  private constructor();
  static generate(options?: KeyOptions): Promise<Identity>;
  static fromKeyPair(pair: KeyPair): Promise<Identity>;
  static fromJwk(jwk: PrivateJwk, options?: KeyOptions): Promise<Identity>;
  /** PEM or DER, as `openssl genpkey -algorithm ed25519` writes it. */
  static fromPkcs8(pkcs8: string | ArrayBuffer | Uint8Array, options?: KeyOptions): Promise<Identity>;
  /** An RFC 8032 private key: 32 bytes. */
  static fromSeed(seed: Uint8Array, options?: KeyOptions): Promise<Identity>;

  readonly did: string;
  /** The 32 bytes of the public key. */
  readonly publicKey: Uint8Array;
  readonly publicKeyBase58: string;
  /** What agents are compared by: the public key in hexadecimal. */
  readonly key: string;
  /** The same key, in the reference's spelling. */
  withLegacyDid(): Identity;
  /** The WebCrypto keys, to be kept in IndexedDB. */
  keyPair(): Promise<KeyPair>;
  toJwk(): Promise<PrivateJwk>;
  /** PKCS#8 as PEM. */
  toPkcs8(): Promise<string>;
  /** Signs some bytes; the result is base64. */
  sign(bytes: Uint8Array): Promise<string>;
}

/** The W3C spelling of a key. */
export declare function didOf(key: Uint8Array): string;
/** The reference's spelling of a key. */
export declare function legacyDidOf(key: Uint8Array): string;
/** What agents are compared and looked up by: the key in hexadecimal; throws a DidError. */
export declare function keyOf(did: string): string;
/** Whether two DIDs name the same agent. */
export declare function isSameAgent(a: string, b: string): boolean;

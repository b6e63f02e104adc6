// What can go wrong: a class for each occasion, whose `kind` says which case it is.
//
// Texts are for people and may change; programs look at class and `kind`. Nothing here tells a secret.

/** What all errors of this module are. */
export class ConexusError extends Error {
  constructor(kind, message, details = {}) {
    const { cause, ...rest } = details;
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.kind = kind;
    Object.assign(this, rest);
  }
}

/** The engine lacks what keys and signatures take. */
export class CryptoUnavailable extends ConexusError {
  constructor(message, details) {
    super('crypto_unavailable', message, details);
  }
}

/** A text is no DID of an agent: `not_did_key`, `not_ed25519`, `not_a_point`, `weak_key`. */
export class DidError extends ConexusError {}

/** A key cannot be read: `wrong_key`. */
export class KeyError extends ConexusError {}

/** A text is no message. `kind` is the reason as the test vectors call it, `id` the message's where it has one. */
export class Malformed extends ConexusError {
  constructor(kind, id = null) {
    super(kind, `not a message: ${kind}`, { id });
  }
}

/** A message is not proven to be its sender's: `sender`, `unsigned`, `signature`, `not_the_gateway`, `not_the_peer`. */
export class Unverified extends ConexusError {
  constructor(kind, message, details) {
    super(kind, `not verified: ${message}`, details);
  }
}

/** A connection was not made. `close` is the gateway's, where it said why; `refusal` its ERROR. */
export class ConnectError extends ConexusError {
  /** Whether to try again is pointless: the answer would be the same. */
  get isFinal() {
    return this.close?.isFinal === true || FINAL.has(this.kind);
  }
}

const FINAL = new Set([
  'url',
  'no_websocket',
  'credentials_in_the_clear',
  'protocol_too_old',
  'already_running',
  'closed',
]);

/** A connection was lost: `closed`, `ended`, `silent`, `slow_handlers`. */
export class ConnectionLost extends ConexusError {}

/** A message was not sent, or not answered. */
export class SendError extends ConexusError {}

/** An ERROR message: the gateway's refusal, or an agent's. `kind` is its code; `reason` the finer one. */
export class Refused extends ConexusError {
  constructor(message) {
    const { code, message: text, details } = message.payload;
    super(code, `${code}: ${text}`, {
      from: message.from,
      correlationId: message.correlationId,
      reason: typeof details?.reason === 'string' ? details.reason : null,
      details: details ?? null,
    });
  }
}

/** A handler threw, or its promise was rejected; `cause` is what it threw. */
export class HandlerFailed extends ConexusError {
  constructor(cause) {
    super('handler', 'a handler failed', { cause });
  }
}

/** A connection to a peer was not made, or was lost. */
export class PeerError extends ConexusError {}

/** A channel does not take a message, or broke. */
export class ChannelError extends ConexusError {}

/** A request was not answered with a result. */
export class RequestError extends ConexusError {}

// What can go wrong: a class for each occasion, whose `kind` says which case it is.

import type { Close } from './client.js';
import type { ErrorCode, Json } from './message.js';

export declare class ConexusError extends Error {
  readonly kind: string;
}

/** The engine lacks what keys and signatures take. */
export declare class CryptoUnavailable extends ConexusError {}

export declare class DidError extends ConexusError {
  readonly kind: 'not_did_key' | 'not_ed25519' | 'not_a_point' | 'weak_key';
}

export declare class KeyError extends ConexusError {
  readonly kind: 'wrong_key' | 'not_extractable';
}

/** A text is no message; `kind` is why, as `missing_field:to`. */
export declare class Malformed extends ConexusError {
  readonly id: string | null;
}

/** A message is not proven to be its sender's. */
export declare class Unverified extends ConexusError {
  readonly kind: 'sender' | 'unsigned' | 'signature' | 'not_the_gateway' | 'not_the_peer' | 'not_for_us';
  readonly from?: string;
  readonly id?: string;
}

/** A connection to the gateway was not made. */
export declare class ConnectError extends ConexusError {
  readonly kind:
    | 'url'
    | 'no_websocket'
    | 'credentials_in_the_clear'
    | 'already_running'
    | 'closed'
    | 'timeout'
    | 'unreachable'
    | 'protocol_too_old'
    | 'unproven_gateway'
    | 'malformed'
    | 'out_of_turn'
    | 'refused'
    | 'closed_by_gateway'
    | 'ended'
    | 'gave_up'
    | 'crypto_unavailable'
    | 'internal';
  readonly close?: Close | null;
  readonly refusal?: Refused;
  /** Whether to try again is pointless. */
  readonly isFinal: boolean;
}

/** The connection to the gateway was lost. */
export declare class ConnectionLost extends ConexusError {
  readonly kind: 'closed' | 'ended' | 'silent' | 'slow_handlers';
  readonly close?: Close;
}

/** A message was not sent, or not answered. */
export declare class SendError extends ConexusError {
  readonly kind:
    | 'not_connected'
    | 'not_sendable'
    | 'unsupported'
    | 'recipient'
    | 'invalid'
    | 'too_large'
    | 'connection_lost'
    | 'timeout';
}

/** An ERROR message: the gateway's refusal, or an agent's. */
export declare class Refused extends ConexusError {
  readonly kind: ErrorCode;
  readonly from: string;
  readonly correlationId: string | null;
  /** `details.reason`, as `unknown_agent`. */
  readonly reason: string | null;
  readonly details: { [name: string]: Json | undefined } | null;
}

/** A handler threw, or its promise was rejected; `cause` is what it threw. */
export declare class HandlerFailed extends ConexusError {
  readonly kind: 'handler';
}

/** A connection to a peer was not made, or was lost. */
export declare class PeerError extends ConexusError {
  readonly kind:
    | 'recipient'
    | 'too_many'
    | 'no_webrtc'
    | 'refused'
    | 'declined'
    | 'refused_offer'
    | 'no_answer'
    | 'no_path'
    | 'timeout'
    | 'closed'
    | 'lost'
    | 'broken'
    | 'too_fast'
    | 'not_connected'
    | 'out_of_place';
}

/** A channel does not take a message, or broke. */
export declare class ChannelError extends ConexusError {
  readonly kind:
    | 'label'
    | 'options'
    | 'not_connected'
    | 'timeout'
    | 'too_large'
    | 'closed'
    | 'failed'
    | 'framing'
    | 'unheard'
    | 'lost';
}

/** A request was not answered with a result. A handler that throws one tells its message to whoever asked. */
export declare class RequestError extends ConexusError {
  constructor(kind: string, message: string, details?: { cause?: unknown });
  /** What an answer with an error had as its result. */
  readonly result?: Json;
}

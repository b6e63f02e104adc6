// Messages: what goes over the wire, and its canonical form.

import type { Identity } from './identity.js';

export type ErrorCode =
  | 'INVALID_SIGNATURE'
  | 'UNKNOWN_AGENT'
  | 'CONNECTION_REFUSED'
  | 'TIMEOUT'
  | 'MALFORMED_MESSAGE'
  | 'UNSUPPORTED_VERSION'
  | 'INTERNAL_ERROR';

/** What JSON has a form for; a bigint is an integer of any size. */
export type Json = null | boolean | number | bigint | string | Json[] | { [name: string]: Json | undefined };

export interface Intent {
  query?: string;
  context?: string;
  task?: string;
  status?: string;
  required_input?: string;
  cost?: string;
  params?: { [name: string]: Json | undefined };
}

/** By type, the payload: docs/protocol.md has the tables. */
export interface Payloads {
  REGISTER: { public_key: string; nonce?: string; audience?: string; metadata?: Metadata; credentials?: string };
  UNREGISTER: { reason?: string };
  OFFER: { sdp: string };
  ANSWER: { sdp: string };
  ICE_CANDIDATE: { candidate: string; sdp_mid?: string | null; sdp_mline_index?: number | null };
  INTENT: Intent;
  EXEC_REQUEST: { args?: { [name: string]: Json | undefined }; timeout_ms?: number; stream?: boolean };
  EXEC_RESPONSE: {
    result?: Json;
    error?: string;
    status?: string;
    execution_time_ms?: number;
    stream_url?: string;
  };
  ERROR: { code: ErrorCode; message: string; details?: { [name: string]: Json | undefined } };
  PING: { sequence?: number };
  PONG: { sequence?: number };
  CHALLENGE: { nonce: string; expires_in_ms: number };
  REGISTERED: {
    session_id: string;
    node_id: string;
    presence_timeout_ms: number;
    heartbeat_ms: number;
    max_message_bytes: number;
    relay: MessageType[];
    ice_servers?: IceServer[];
    server_time: string;
  };
  WATCH: { dids: string[] };
  UNWATCH: { dids: string[] };
  PRESENCE: { did: string; state: 'online' | 'offline'; reason?: string; since: string };
}

export type MessageType = keyof Payloads;

/** What an agent publishes about itself. */
export interface Metadata {
  name?: string;
  capabilities?: string[];
  attributes?: Record<string, string>;
}

/** A STUN or TURN server, as RTCIceServer. */
export interface IceServer {
  urls: string | string[];
  username?: string;
  credential?: string;
}

/** By which rules a message is judged. */
export interface Rules {
  readonly name: 'v1' | 'v1.1';
  readonly types: readonly string[];
  readonly compat: boolean;
}

export declare const RULES: { readonly V1_STRICT: Rules; readonly V1_COMPAT: Rules; readonly V1_1: Rules };

/** A message of one type. Members that are null count as absent. */
interface MessageOf<T extends MessageType> {
  readonly id: string;
  readonly correlationId: string | null;
  readonly timestamp: string | null;
  readonly from: string;
  readonly to: string;
  readonly type: T;
  readonly payload: Payloads[T];
  readonly signature: string;
  /** The text as it was received. */
  readonly text: string;
  /** When it was written, by its sender's clock: milliseconds since 1970. */
  readonly time: number | null;
  /** The text under the signature. */
  signedText(): string;
  /** Verifies the signature with the key in `from`, strictly; throws Unverified. */
  verify(): Promise<void>;
}

/** One message, as it arrived: to look at `type` tells which payload it has. */
export type Message = { [T in MessageType]: MessageOf<T> }[MessageType];
export declare const Message: {
  /** Reads a text and checks the whole schema; throws Malformed. */
  parse(text: string, rules?: Rules): Message;
};

/** Signed wire text of a message of one's own, and the id that it got. */
export declare function signMessage<T extends MessageType>(
  identity: Identity,
  draft: {
    to: string;
    type: T;
    payload?: Payloads[T];
    id?: string;
    correlationId?: string;
    timestamp?: number;
    audience?: string;
  },
): Promise<{ id: string; text: string }>;

/** The canonical form of a JSON text; throws a SyntaxError for anything else. */
export declare function canonicalize(text: string): string;

// The client: an agent's connection to its gateway.

import type { ConexusError } from './errors.js';
import type { Identity } from './identity.js';
import type { IceServer, Intent, Json, Message, MessageType, Metadata, Payloads } from './message.js';
import type { AcceptOptions, IncomingRequest, Peer, PeerOptions, RequestOptions } from './peer.js';
import type { PlatformPeerConnection, PlatformSignal, PlatformWebSocket } from './platform.js';

/** Where a client, or a peer, stands. */
export type State = 'disconnected' | 'connecting' | 'connected' | 'disconnecting' | 'error';

/** Takes a handler away again; whether it was there. */
export type Remove = () => boolean;

/** When and how often a lost connection is made again; times in milliseconds. */
export interface ReconnectPolicy {
  /** The first delay; each further one is twice as long. Default: 1000. */
  initial?: number;
  /** No delay is longer. Default: 30000. */
  max?: number;
  /** Attempts in a row before the client gives up; 0 means never. Default: 5. */
  maxAttempts?: number;
  /** A session that held this long starts the count anew. Default: 10000. */
  stableAfter?: number;
}

/** Times in milliseconds. */
export interface ClientOptions {
  /** How long dialing and registering may take together. Default: 10000. */
  connectTimeout?: number;
  /** How long a farewell may take. Default: 5000. */
  closeTimeout?: number;
  /** How long to wait for an answer where the call does not say. Default: 30000. */
  requestTimeout?: number;
  /** `false`: a lost connection is the end. */
  reconnect?: ReconnectPolicy | false;
  /** Whether the first connection is retried like a lost one. Default: false. */
  retryFirst?: boolean;
  /** `ioap.v1.1` forbids the fallback to v1, where neither side's identity is proven to the other. Default: `ioap.v1`. */
  minProtocol?: 'ioap.v1' | 'ioap.v1.1';
  /** What the agent publishes about itself. Does not exist on ioap.v1. */
  metadata?: Metadata;
  /** A secret for the gateway's on_register. Sent over TLS or loopback only, and not on ioap.v1. */
  credentials?: string;
  /** Whether agents' signatures are verified. Default: true. */
  verifyIncoming?: boolean;
  /** Whether agents' messages may have the quirks of the Python reference client. Default: true. */
  tolerateQuirks?: boolean;
  /** After how much silence to PING. Default: what the gateway says; 60000 on ioap.v1. */
  heartbeat?: number;
  /** How many messages may wait for the handlers before the connection is ended. Default: 1024. */
  inboundQueue?: number;
  /** And of how many characters in all. Default: 16 Mi. */
  inboundBytes?: number;
  /** How many peers there may be. Default: 64. */
  maxPeers?: number;
  /**
   * Whether the gateway is told by which kinds of candidates this agent's peers are connected, and how long that took,
   * for its operators' counts; not to whom. Default: false.
   */
  reportOutcomes?: boolean;
  /** Another WebSocket than the engine's. Node has one from 22 on, and 20 with --experimental-websocket. */
  WebSocket?: PlatformWebSocket;
  /** Another RTCPeerConnection than the engine's, or null for none. */
  RTCPeerConnection?: PlatformPeerConnection | null;
}

/** How the gateway closed a connection. */
export declare class Close {
  constructor(code: number, reason: string);
  readonly code: number;
  readonly reason: string;
  readonly isFinal: boolean;
  /** The wait in milliseconds that a restarting gateway asks for. */
  readonly reconnectIn: number | null;
}

/** What the gateway said at registration. */
export declare class Session {
  private constructor();
  readonly protocol: 'ioap.v1' | 'ioap.v1.1';
  /** The gateway's DID; null on ioap.v1. */
  readonly gateway: string | null;
  readonly gatewayDid: string;
  readonly sessionId: string | null;
  readonly nodeId: string | null;
  /** In milliseconds. */
  readonly heartbeat: number;
  readonly presenceTimeout: number | null;
  readonly maxMessageBytes: number;
  /** The types that the gateway routes; empty on ioap.v1, where it does not say. */
  readonly relay: readonly MessageType[];
  readonly iceServers: IceServer[];
}

/** What a watch tells: an agent's state, or why it is not to be watched. */
export type PresenceWord =
  | { did: string; state: 'online' | 'offline'; reason: string | null; since: string; error?: undefined }
  | { did: string; error: ConexusError; state?: undefined };

export declare class Watch {
  private constructor();
  readonly dids: readonly string[];
  close(): void;
}

export interface Patience {
  /** In milliseconds. */
  timeout?: number;
  signal?: PlatformSignal;
}

export declare class Client {
  constructor(url: string, identity: Identity, options?: ClientOptions);
  readonly state: State;
  readonly identity: Identity;
  readonly did: string;
  readonly session: Session | null;
  readonly peers: Peer[];

  /** Connects and registers; throws a ConnectError. */
  connect(): Promise<this>;
  /** Ends the peers, says goodbye and closes. */
  close(): Promise<void>;

  /** Signs and sends a message; resolves with its id once the socket has it. */
  send<T extends MessageType>(
    to: string,
    type: T,
    payload?: Payloads[T],
    options?: { correlationId?: string; id?: string },
  ): Promise<string>;
  reply<T extends MessageType>(message: Message, type: T, payload?: Payloads[T]): Promise<string>;
  /** Sends a message and waits for its answer; an ERROR throws Refused. */
  sendConfirmed<T extends MessageType>(
    to: string,
    type: T,
    payload?: Payloads[T],
    options?: Patience,
  ): Promise<Message>;
  /** How many milliseconds the gateway's PONG takes. */
  ping(options?: Patience): Promise<number>;
  updateMetadata(metadata: Metadata): Promise<void>;
  iceServers(): Promise<IceServer[]>;

  onMessage(handler: (message: Message) => unknown): Remove;
  onError(handler: (error: ConexusError) => unknown): Remove;
  onState(handler: (state: State) => unknown): Remove;
  watch(dids: string | Iterable<string>, handler: (word: PresenceWord) => unknown): Watch;

  /** Connects to another agent directly. */
  connectPeer(did: string, options?: PeerOptions): Promise<Peer>;
  /** Whoever connects is handed to `handler` once it is connected. */
  onPeer(handler: (peer: Peer) => unknown, options?: AcceptOptions): () => void;
  /** Does what other agents ask: what it returns is the result. */
  onRequest(handler: (request: IncomingRequest) => Json | undefined | void | Promise<Json | undefined | void>): () => void;
  /** Answers other agents' INTENTs. */
  onIntent(handler: (message: Message) => Intent | void | Promise<Intent | void>): () => void;
  /** Asks an agent, directly where there is a way, else by the gateway where it carries that. */
  request(did: string, args?: { [name: string]: Json | undefined }, options?: RequestOptions): Promise<Json>;
}

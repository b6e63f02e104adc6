// Peers: other agents, connected directly, and the channels between the two.

import type { Patience, Remove, State } from './client.js';
import type { ChannelError, PeerError } from './errors.js';
import type { Intent, Json, Message } from './message.js';
import type { PlatformPeerConnection, PlatformSignal } from './platform.js';

/** Times in milliseconds. */
export interface PeerOptions {
  /** For all of connecting. Default: 30000. */
  timeout?: number;
  /** For the ANSWER to an OFFER. Default: 10000. */
  answerTimeout?: number;
  /** From the ANSWER to an open connection. Default: 15000. */
  openTimeout?: number;
  /** For the channels to close. Default: 2000. */
  closeTimeout?: number;
  /** OFFERs before it is given up. Default: 3. */
  attempts?: number;
  /** ICE restarts in a row before a connection counts as lost. Default: 5. */
  restarts?: number;
  /** Whether requests go by the gateway where no direct way opens. The gateway can read them. Default: false. */
  fallback?: boolean;
  /** The largest message to receive on the channels that the other side opens. Default: 16 MiB. */
  maxMessageBytes?: number;
  /** Joined to what RTCPeerConnection is made with: `iceServers`, `iceTransportPolicy`… */
  rtcConfiguration?: object;
  RTCPeerConnection?: PlatformPeerConnection;
}

export interface AcceptOptions extends PeerOptions {
  /** Who may connect. Default: everybody whom the gateway lets through. */
  accept?: (did: string) => boolean | Promise<boolean>;
}

export interface ChannelOptions {
  /** Default: true. */
  ordered?: boolean;
  /** Give a message up after so many retransmissions, or after so many milliseconds; not both. */
  maxRetransmits?: number;
  maxPacketLifeTime?: number;
  /** The application's own name for what is spoken. */
  protocol?: string;
  /** The largest message. Default: 16 MiB; 64 KiB at most where order or delivery is given up. */
  maxMessageBytes?: number;
}

/** How two peers are connected. */
export interface PeerStats {
  path: 'direct' | 'gateway' | null;
  connectMs: number | null;
  restarts: number;
  channels: number;
  pair: {
    /** host, srflx, prflx or relay. */
    local: string;
    remote: string;
    protocol: string;
    relayProtocol: string | null;
    rttMs: number | null;
    bytesSent: number;
    bytesReceived: number;
  } | null;
}

export interface RequestOptions extends Patience {
  /** Told what the other side reports before it is done. */
  onProgress?: (value: Json) => void;
  /** Told each part of the result; asks for them. */
  onPart?: (value: Json) => void;
}

/** What another agent asked for, while it is done. */
export interface IncomingRequest {
  readonly from: string;
  readonly message: Message;
  readonly args: { [name: string]: any };
  readonly wantsStream: boolean;
  /** Aborted when nobody wants the result any more. */
  readonly signal: PlatformSignal;
  progress(value: Json): Promise<void>;
  part(value: Json): Promise<void>;
}

export declare class Channel {
  private constructor();
  readonly label: string;
  readonly protocol: string;
  readonly ordered: boolean;
  readonly maxRetransmits: number | null;
  readonly maxPacketLifeTime: number | null;
  /** Whether messages of any size may be sent. */
  readonly isFramed: boolean;
  readonly state: 'connecting' | 'open' | 'closing' | 'closed';
  readonly bufferedAmount: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly opened: Promise<void>;
  readonly closed: Promise<void>;
  /** Resolves once all of it is handed over, with at most 1 MiB unsent. */
  send(data: string | ArrayBuffer | ArrayBufferView): Promise<void>;
  onMessage(handler: (message: string | ArrayBuffer) => unknown): Remove;
  /** Called with null, or the error that ended it. */
  onClose(handler: (error: ChannelError | null) => unknown): Remove;
  close(): Promise<void>;
}

export declare class Peer {
  private constructor();
  readonly did: string;
  readonly key: string;
  readonly state: State;
  readonly path: 'direct' | 'gateway' | null;
  /** Resolves when it has ended: with null after an orderly end, else with the error. */
  readonly closed: Promise<PeerError | null>;
  onState(handler: (state: State) => unknown): Remove;
  onChannel(handler: (channel: Channel) => unknown): Remove;
  openChannel(label: string, options?: ChannelOptions): Promise<Channel>;
  request(args?: { [name: string]: Json | undefined }, options?: RequestOptions): Promise<Json>;
  /** An iterator of the parts, which returns the result. */
  stream(args?: { [name: string]: Json | undefined }, options?: RequestOptions): AsyncGenerator<Json, Json, void>;
  intent(payload: Intent, options?: Patience): Promise<Intent>;
  /** In milliseconds. */
  ping(options?: Patience): Promise<number>;
  stats(): Promise<PeerStats>;
  close(): Promise<void>;
}

// What browsers and Node have, by the little of it that is used: so that these types need neither's.

/** A CryptoKey. */
export interface PlatformKey {
  readonly algorithm: { name: string };
  readonly extractable: boolean;
  readonly type: string;
  readonly usages: string[];
}

/** An AbortSignal. */
export interface PlatformSignal {
  readonly aborted: boolean;
  readonly reason: any;
  addEventListener(type: 'abort', listener: () => void, options?: any): void;
}

/** The constructor of WebSockets. */
export type PlatformWebSocket = new (url: string, protocols?: string | string[]) => any;

/** The constructor of RTCPeerConnections. */
export type PlatformPeerConnection = new (configuration?: any) => any;

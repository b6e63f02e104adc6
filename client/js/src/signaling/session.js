// What the gateway said when it registered this agent.

import { REFERENCE_GATEWAY_DID } from '../protocol/did.js';
import { parseTimestamp } from '../protocol/timestamp.js';

/** PING at least this often where the gateway does not say (ioap.v1). */
const V1_HEARTBEAT = 60_000;
/** What a gateway may ask for: neither a flood of PINGs nor none at all. */
const HEARTBEATS = [1_000, 3_600_000];
/** What may be sent on ioap.v1, where the gateway does not say: the reference's peers take 1 MiB. */
const V1_MESSAGE_BYTES = 1024 * 1024;
/** No message is larger, whatever the gateway would take. */
const LARGEST = 16 * 1024 * 1024;
/** A smaller number before the colon of a TURN user name is no time. */
const THE_YEAR_2001 = 1_000_000_000;

/** A registration that holds. */
export class Session {
  #ice = { servers: [], goodFor: null, since: 0 };
  /** How far the gateway's clock is ahead of ours, in milliseconds: 0 where it does not tell. */
  clockAhead = 0;

  static v1(heartbeat) {
    return new Session({
      protocol: 'ioap.v1',
      gateway: null,
      nonce: null,
      sessionId: null,
      nodeId: null,
      heartbeat: heartbeat ?? V1_HEARTBEAT,
      presenceTimeout: null,
      maxMessageBytes: V1_MESSAGE_BYTES,
      relay: [],
    });
  }

  /** `heartbeat` is the user's own and goes before the gateway's. */
  static v1_1(gateway, nonce, registered, heartbeat) {
    const told = Math.min(Math.max(Number(registered.heartbeat_ms), HEARTBEATS[0]), HEARTBEATS[1]);
    const session = new Session({
      protocol: 'ioap.v1.1',
      gateway,
      nonce,
      sessionId: registered.session_id,
      nodeId: registered.node_id,
      heartbeat: heartbeat ?? told,
      presenceTimeout: Number(registered.presence_timeout_ms),
      maxMessageBytes: Math.min(Number(registered.max_message_bytes), LARGEST),
      relay: Object.freeze([...registered.relay]),
    });
    session.noteIce(registered);
    session.clockAhead = (parseTimestamp(registered.server_time) ?? Date.now()) - Date.now();
    return session;
  }

  constructor({ nonce, ...told }) {
    Object.assign(this, told);
    Object.defineProperty(this, 'nonce', { value: nonce });
  }

  /** Whom what is meant for the gateway is addressed to. */
  get gatewayDid() {
    return this.gateway ?? REFERENCE_GATEWAY_DID;
  }

  /** The STUN and TURN servers that the gateway told last, as WebRTC wants them. */
  get iceServers() {
    return structuredClone(this.#ice.servers);
  }

  /** REGISTERED has them, at the start and at each renewal. */
  noteIce({ ice_servers: servers = [], server_time: time }) {
    const now = (parseTimestamp(time) ?? Date.now()) / 1000;
    const expiries = servers.map(expiryOf).filter((expiry) => expiry !== null);
    const goodFor = expiries.length > 0 ? Math.max(Math.min(...expiries) - now, 0) * 1000 : null;
    this.#ice = { servers, goodFor, since: performance.now() };
  }

  /** Whether half the time of their credentials is over. */
  get isIceOld() {
    const { goodFor, since } = this.#ice;
    return goodFor !== null && performance.now() - since >= goodFor / 2;
  }
}

/** The second at which a credential expires, in the scheme of TURN's REST API: the user name up to the colon. */
function expiryOf({ username, credential }) {
  const found = credential !== undefined && /^(\d+):/.exec(username ?? '');
  return found && Number(found[1]) >= THE_YEAR_2001 ? Number(found[1]) : null;
}

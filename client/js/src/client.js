// The client: an agent's connection to its gateway, and by it to other agents.
//
// Everything here is a thin face: `driver` keeps the connection, `link` is one of them, `peers` has the direct
// ones. Nothing is queued for later: what cannot be sent now fails now.

import { ConexusError, ConnectError, HandlerFailed, SendError } from './errors.js';
import { Identity } from './protocol/identity.js';
import { parse, stringify } from './protocol/json.js';
import { RULES, faultOfPayload } from './protocol/schema.js';
import { Dispatcher } from './signaling/dispatcher.js';
import { Driver } from './signaling/driver.js';
import { Endpoint } from './signaling/endpoint.js';
import { reportOutcome } from './signaling/outcomes.js';
import { registerPayload } from './signaling/register.js';
import { Watches, recipientKey } from './signaling/watching.js';
import { Peers } from './peer/peers.js';

const PROTOCOLS = ['ioap.v1', 'ioap.v1.1'];
/** What only the client itself says. */
const NOT_SENDABLE = new Set(['REGISTER', 'UNREGISTER', 'CHALLENGE', 'REGISTERED', 'PRESENCE', 'WATCH', 'UNWATCH']);
const FOR_THE_GATEWAY = new Set(['PING', 'PONG']);

const DEFAULTS = Object.freeze({
  connectTimeout: 10_000,
  closeTimeout: 5_000,
  requestTimeout: 30_000,
  reconnect: {},
  retryFirst: false,
  minProtocol: 'ioap.v1',
  verifyIncoming: true,
  tolerateQuirks: true,
  inboundQueue: 1024,
  inboundBytes: 16 * 1024 * 1024,
  maxPeers: 64,
  reportOutcomes: false,
});

export class Client {
  #config;
  #metadata;
  #dispatcher;
  #watches = new Watches();
  #peers;
  #driver = null;
  #link = null;
  #clockAhead = 0;

  /** `url` is the gateway's `ws://` or `wss://`; see the types for the options. */
  constructor(url, identity, options = {}) {
    this.#config = configuration(url, identity, options);
    this.#metadata = options.metadata;
    this.#dispatcher = new Dispatcher({ events: this.#config.inboundQueue, bytes: this.#config.inboundBytes });
    this.#peers = new Peers({
      identity,
      verifyIncoming: this.#config.verifyIncoming,
      maxPeers: this.#config.maxPeers,
      RTCPeerConnection:
        options.RTCPeerConnection === undefined ? globalThis.RTCPeerConnection : options.RTCPeerConnection,
      say: async (draft) => this.#online().say(draft),
      relays: (type) => this.#link?.session.relay.includes(type) ?? false,
      iceServers: () => this.iceServers(),
      now: () => Date.now() + this.#clockAhead,
      report: (error) => this.#report(error),
      cameOut: (pair, millis) => this.#cameOut(pair, millis),
    });
    /** disconnected, connecting, connected, disconnecting or error. */
    this.state = 'disconnected';
  }

  // ---- Who one is, and how one stands with the gateway ---------------------------------------------------

  get identity() {
    return this.#config.identity;
  }

  get did() {
    return this.#config.identity.did;
  }

  /** What the gateway said at registration; null while there is no connection. */
  get session() {
    return this.#link?.session ?? null;
  }

  /** Connects and registers; throws a ConnectError. A connection that is lost later is made again. */
  async connect() {
    if (this.#driver) throw new ConnectError('already_running', 'the client is running already');
    const sinks = { dispatcher: this.#dispatcher, watches: this.#watches, claim: (judged) => this.#peers.claim(judged) };
    const driver = new Driver(this.#config, sinks, {
      enter: (state, link) => this.#enter(state, link),
      metadata: () => this.#metadata,
    });
    this.#driver = driver;
    driver.over.then(() => {
      if (this.#driver === driver) this.#driver = null;
    });
    await driver.start();
    return this;
  }

  /** Ends the peers, says goodbye (UNREGISTER) and closes; resolves when it is done and the handlers have had all. */
  async close() {
    await this.#peers.close();
    await this.#driver?.stop();
    await this.#dispatcher.idle();
  }

  // ---- Sending -----------------------------------------------------------------------------------

  /** Signs and sends a message; resolves with its id once the socket has it. Throws a SendError. */
  async send(to, type, payload = {}, { correlationId, id } = {}) {
    const link = this.#online();
    checkSendable(link, to, type, payload);
    return link.say({ to, type, payload, correlationId, id });
  }

  /** Answers a message: to its sender, with its id as correlation id. */
  reply(message, type, payload = {}) {
    return this.send(message.from, type, payload, { correlationId: message.id });
  }

  /** Sends a message and waits for what its recipient or the gateway answers; an ERROR throws Refused. */
  async sendConfirmed(to, type, payload = {}, { timeout = this.#config.requestTimeout, signal } = {}) {
    const link = this.#online();
    checkSendable(link, to, type, payload);
    const peer = FOR_THE_GATEWAY.has(type) ? null : recipientKey(to);
    return link.ask({ to, type, payload }, peer, { timeout, signal });
  }

  /** PINGs the gateway and resolves with how many milliseconds the PONG took. */
  async ping({ timeout = this.#config.requestTimeout, signal } = {}) {
    const link = this.#online();
    const began = performance.now();
    await link.ask({ to: link.session.gatewayDid, type: 'PING', payload: {} }, null, { timeout, signal });
    return performance.now() - began;
  }

  /** Replaces what this agent publishes about itself, now and at each later registration. */
  async updateMetadata(metadata) {
    await this.#renew(metadata);
    this.#metadata = metadata;
  }

  /** The STUN and TURN servers that the gateway tells, renewed when half of their time is over. */
  async iceServers() {
    const session = this.#link?.session;
    if (session?.nonce && session.isIceOld) {
      // The older ones may do.
      await this.#renew(this.#metadata).catch((error) => this.#report(error));
    }
    return session?.iceServers ?? [];
  }

  // ---- Listening ---------------------------------------------------------------------------------

  /** Calls `handler` with each verified Message that is no awaited answer. The next one waits for its promise. */
  onMessage(handler) {
    return this.#dispatcher.add('message', handler);
  }

  /** Calls `handler` with each error that no caller is told of. */
  onError(handler) {
    return this.#dispatcher.add('error', handler);
  }

  /** Calls `handler` with each state that the client enters. */
  onState(handler) {
    return this.#dispatcher.add('state', handler);
  }

  /** Follows when other agents come and go; `handler` gets `{did, state, reason, since}`, or `{did, error}`. */
  watch(dids, handler) {
    if (typeof handler !== 'function') throw new TypeError('a handler is a function');
    const tell = (word) => this.#dispatcher.push('call', { handler, word });
    return this.#watches.watch(typeof dids === 'string' ? [dids] : dids, tell);
  }

  // ---- Peers ---------------------------------------------------------------------------------------

  /** Connects to another agent directly; resolves with the Peer. */
  async connectPeer(did, options) {
    this.#online();
    return this.#peers.connect(did, options);
  }

  /** Whoever connects is handed to `handler` once it is connected. */
  onPeer(handler, options) {
    if (typeof handler !== 'function') throw new TypeError('a handler is a function');
    return this.#peers.onPeer(handler, options);
  }

  /** The peers that there are. */
  get peers() {
    return this.#peers.all;
  }

  /** Does what other agents ask: `handler` gets the request, and what it returns is the result. */
  onRequest(handler) {
    return this.#peers.calls.onRequest(handler);
  }

  /** Answers other agents' INTENTs: `handler` gets the Message and returns the payload of the INTENT that answers. */
  onIntent(handler) {
    return this.#peers.calls.onIntent(handler);
  }

  /** Asks an agent to do something, directly where there is a way, else by the gateway where it carries that. */
  async request(did, args, options) {
    return this.#peers.calls.request(this.#peers.askable(did), args, options);
  }

  #enter(state, link) {
    if (link) {
      this.#link = link;
      this.#clockAhead = link.session.clockAhead;
      this.#watches.attach(link);
    } else if (this.#link) {
      this.#link = null;
      this.#watches.detach();
    }
    if (state === this.state) return;
    this.state = state;
    this.#dispatcher.push('state', state);
  }

  #online() {
    if (this.#link) return this.#link;
    throw new SendError('not_connected', `not connected: the client is ${this.state}`);
  }

  async #renew(metadata) {
    const link = this.#online();
    const { nonce, protocol } = link.session;
    if (!nonce) throw new SendError('unsupported', `the session speaks ${protocol}, which has no metadata`);
    // Sent even when it is empty: that is how it is taken back.
    const payload = registerPayload(this.#config, nonce, metadata ?? {});
    const patience = { timeout: this.#config.requestTimeout };
    const answer = await link.ask({ to: this.did, type: 'REGISTER', payload }, null, patience);
    if (answer.type === 'REGISTERED') link.session.noteIce(answer.payload);
  }

  /** Where no connection to the gateway stands, it would not know who tells. */
  #cameOut(pair, millis) {
    if (!this.#config.reportOutcomes || !this.#link) return;
    reportOutcome({ ...this.#config, now: () => Date.now() + this.#clockAhead }, pair, millis);
  }

  #report(error) {
    this.#dispatcher.push('error', error instanceof ConexusError ? error : new HandlerFailed(error));
  }
}

function configuration(url, identity, options) {
  if (!(identity instanceof Identity)) throw new TypeError('an Identity is needed');
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const config = { ...DEFAULTS, ...given, identity, endpoint: new Endpoint(url) };
  config.WebSocket = options.WebSocket === undefined ? globalThis.WebSocket : options.WebSocket;
  if (typeof config.WebSocket !== 'function') {
    throw new ConnectError('no_websocket', 'there is no WebSocket: Node has one from 22 on (20 with --experimental-websocket); pass another as the option WebSocket');
  }
  if (!PROTOCOLS.includes(config.minProtocol)) throw new TypeError(`minProtocol is one of ${PROTOCOLS.join(', ')}`);
  if (config.credentials !== undefined && !config.endpoint.isPrivate) {
    throw new ConnectError('credentials_in_the_clear', 'credentials are sent over tls or loopback only');
  }
  return Object.freeze(config);
}

/** Whether an agent may say this, to whom it says; throws a SendError. */
function checkSendable(link, to, type, payload) {
  const rules = link.session.protocol === 'ioap.v1' ? RULES.V1_STRICT : RULES.V1_1;
  if (NOT_SENDABLE.has(type) || !rules.types.includes(type)) {
    throw new SendError('not_sendable', `${type} is not for agents to send`);
  }
  if (!FOR_THE_GATEWAY.has(type)) recipientKey(to);
  let fault;
  try {
    fault = faultOfPayload(type, rules, parse(stringify(payload)));
  } catch (error) {
    throw new SendError('invalid', `the message is malformed: ${error.message}`, { cause: error });
  }
  if (fault !== null) throw new SendError('invalid', `the message is malformed: ${fault}`);
}

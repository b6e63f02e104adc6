// Another agent, connected directly: its state, its channels, what is asked of it.
//
// A Peer ends once and for all; who connects to the same agent later gets another one. How the connection is
// agreed on is `negotiation`'s, what is asked and answered is `calls`'; this keeps it alive and ends it.

import { ChannelError, PeerError } from '../errors.js';
import { Handlers } from '../handlers.js';
import { Serial } from '../serial.js';
import { Channel, RESERVED } from './channel.js';
import { Deadline } from './deadline.js';
import { Negotiation } from './negotiation.js';
import { pairOf } from './stats.js';

/** The largest application message over the control channel, as the gateway's limit on what clients take. */
const MAX_CONTROL_BYTES = 1024 * 1024;
/** Nothing is said in the moment in which the other side's stack may still be opening the channel: docs/webrtc.md. */
const SETTLES = 20;
/** Application messages that wait to be sent, and to be verified. */
const MAX_UNSAID = 1024;
const MAX_UNHEARD = 4096;
const MAX_UNHEARD_LETTERS = 16 * 1024 * 1024;
/** A way that is interrupted may come back by itself for that long; the one who answered waits longer. */
const INTERRUPTED = 2_000;
const ANSWERER_WAITS = 3_000;
/** Pauses between attempts double from here. */
const FIRST_PAUSE = 1_000;
/** Channels that came before anybody wanted to know. */
const MAX_EARLY_CHANNELS = 64;

/** An attempt that ended so would end so again. */
const POINTLESS = new Set(['UNKNOWN_AGENT', 'MALFORMED_MESSAGE', 'INVALID_SIGNATURE']);
const POINTLESS_REASONS = new Set(['declined', 'denied', 'not_relayed', 'withdrawn']);

export class Peer {
  #port;
  #options;
  #negotiation;
  #opening = new Deadline();
  #ready = new Deadline();
  #states;
  #channelHandlers;
  #channels = new Set();
  #earlyChannels = [];
  #control = null;
  #settled = null;
  #saying = new Serial(MAX_UNSAID);
  #hearing = new Serial(MAX_UNHEARD);
  #unheard = 0;
  #pause = null;
  #restarts = 0;
  #restarting = null;
  #since = performance.now();
  #connectMs = null;
  #hasSought = false;
  #end;

  /** `port` is what a peer needs of its client; see `peers`. */
  constructor(port, { did, key, isPolite }, options) {
    this.#port = port;
    this.#options = options;
    this.did = did;
    this.key = key;
    this.state = 'connecting';
    /** `direct`, `gateway` (the fallback) or null while there is no way. */
    this.path = null;
    this.#states = new Handlers(port.report);
    this.#channelHandlers = new Handlers(port.report);
    this.#negotiation = new Negotiation({
      port: { ...port, configuration: options.rtcConfiguration },
      did,
      isPolite,
      sinks: {
        transport: (transport) => this.#begun(transport),
        changed: () => this.#changed(),
        channel: (native, limit) => this.#offeredChannel(native, limit),
        answered: () => this.#sought(),
        refused: (error) => this.#refused(error),
      },
    });
    /** Resolves when it has ended: with null after an orderly end, else with the PeerError. */
    this.closed = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  // ---- For everyone -------------------------------------------------------------------------------

  /** Calls `handler` with each state: connecting, connected, disconnecting, disconnected, error. */
  onState(handler) {
    return this.#states.add(handler);
  }

  /** Calls `handler` with each Channel that the other side opens. What came before the first handler waits for it. */
  onChannel(handler) {
    const remove = this.#channelHandlers.add(handler);
    for (const channel of this.#earlyChannels.splice(0)) this.#channelHandlers.call(channel);
    return remove;
  }

  /** Opens a channel; resolves when messages can be sent. */
  async openChannel(label, options = {}) {
    if (typeof label !== 'string' || label.startsWith(RESERVED)) {
      throw new ChannelError('label', `a label is a text that does not begin with ${RESERVED}`);
    }
    if (options.maxRetransmits !== undefined && options.maxPacketLifeTime !== undefined) {
      throw new ChannelError('options', 'a channel gives up by retransmissions or by time, not both');
    }
    if (this.path !== 'direct' || this.state !== 'connected') {
      throw new ChannelError('not_connected', `there is no direct way: the peer is ${this.state}`);
    }
    const channel = new Channel(label, options, this.#port.report);
    this.#keep(channel);
    this.#negotiation.transport.carry(channel);
    const patience = new Deadline();
    patience.within(this.#options.openTimeout, () => new ChannelError('timeout', 'the channel did not open in time'));
    try {
      await Promise.race([channel.opened, patience.promise]);
    } catch (error) {
      channel.end(error);
      throw error;
    } finally {
      patience.done();
    }
    return channel;
  }

  /** Asks the agent to do something (EXEC_REQUEST); resolves with its result. */
  request(args, options) {
    return this.#port.calls.request(this, args, options);
  }

  /** The same, as it is done: an async iterator of the parts, which returns the result. */
  stream(args, options) {
    return this.#port.calls.stream(this, args, options);
  }

  /** Says what one is after (INTENT); resolves with the INTENT that answers. */
  intent(payload, options) {
    return this.#port.calls.intent(this, payload, options);
  }

  /** How long a PING and its PONG take, in milliseconds. */
  ping(options) {
    return this.#port.calls.ping(this, options);
  }

  /** How it is connected. */
  async stats() {
    const { transport } = this.#negotiation;
    const pair = this.path === 'direct' && transport ? pairOf(await transport.stats()) : null;
    return { path: this.path, connectMs: this.#connectMs, restarts: this.#restarts, channels: this.#channels.size, pair };
  }

  /** Ends it: what is handed over is sent, the channels are closed, then the connection. */
  async close() {
    if (this.#isOver) return;
    this.#enter('disconnecting');
    const wasOpen = this.path === 'direct';
    if (!wasOpen) this.#negotiation.withdraw();
    const patience = new Deadline();
    patience.within(this.#options.closeTimeout, () => null);
    const channels = [...this.#channels, ...(this.#control ? [this.#control] : [])];
    if (wasOpen) await Promise.race([Promise.all(channels.map((channel) => channel.close())), patience.promise]).catch(() => {});
    patience.done();
    this.finish(null);
  }

  // ---- For `peers` and `calls` ----------------------------------------------------------------------

  /** Connects by an OFFER of ours; resolves when it is open, or the fallback stands. */
  connect() {
    this.#ready.within(this.#options.timeout, () => new PeerError('timeout', `not connected within ${this.#options.timeout} ms`));
    this.#establish().then(
      () => this.#ready.done(this),
      (error) => this.#ready.fail(error),
    );
    return this.#ready.promise.catch((error) => this.#fallBack(error));
  }

  /** Takes their OFFER once `welcome` resolves with true; resolves when it is open. */
  async accept(message, welcome) {
    const { answerTimeout, openTimeout } = this.#options;
    this.#opening.within(answerTimeout + openTimeout, () => this.#unopened());
    try {
      await this.#negotiation.take(message, welcome);
      await this.#opening.promise;
      return this;
    } catch (error) {
      this.#foundNone(error);
      this.finish(peerError(error));
      throw error;
    }
  }

  /** What `connect` resolves with, for others who want the same. */
  get ready() {
    return this.state === 'connected' ? Promise.resolve(this) : this.#ready.promise;
  }

  get isOffering() {
    return this.#negotiation.isOffering;
  }

  get isOpen() {
    return this.path !== null;
  }

  get isFinished() {
    return this.#isOver;
  }

  concerns(correlationId) {
    return this.#negotiation.concerns(correlationId);
  }

  isNewer(message) {
    return this.#negotiation.isNewer(message);
  }

  take(message) {
    return this.#negotiation.take(message);
  }

  takeError(message) {
    return this.#negotiation.takeError(message);
  }

  /** Sends what `signed` resolves with over the control channel, in the order of the calls. */
  say(signed) {
    // Told to the caller when its turn has come.
    signed.catch(() => {});
    return this.#saying.run(async () => {
      const { text } = await signed;
      if (this.path !== 'direct') throw new PeerError('not_connected', 'there is no direct way');
      await this.#settled;
      // It may have ended meanwhile.
      if (this.path !== 'direct') throw new ChannelError('closed', 'the channel is closed');
      await this.#control.send(text);
    });
  }

  /** The end, once; `error` where it should not have been. */
  finish(error) {
    if (this.#isOver) return;
    clearTimeout(this.#restarting);
    this.#pause?.();
    const ended = error ?? new PeerError('closed', 'the connection to the peer was closed');
    this.#negotiation.close();
    this.#opening.fail(ended);
    this.#ready.fail(ended);
    this.path = null;
    for (const channel of [...this.#channels]) channel.end(error && new ChannelError('lost', error.message, { cause: error }));
    this.#control?.end();
    if (error === null) this.#enter('disconnecting');
    this.#enter(error === null ? 'disconnected' : 'error');
    this.#port.ended(this, ended);
    this.#end(error);
  }

  // ---- The way to an open connection -----------------------------------------------------------------

  get #isOver() {
    return this.state === 'disconnected' || this.state === 'error';
  }

  async #establish() {
    if (!this.#port.RTCPeerConnection) {
      throw new PeerError('no_webrtc', 'there is no RTCPeerConnection: browsers have one, Node takes an implementation as an option');
    }
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.#attempt();
        return;
      } catch (error) {
        if (this.#isOver) throw error;
        if (attempt >= this.#options.attempts || isPointless(error)) throw peerError(error);
        await this.#rest(FIRST_PAUSE * 2 ** (attempt - 1));
        // Theirs may have come meanwhile.
        if (this.isOpen) return;
        if (this.#isOver) throw error;
      }
    }
  }

  /** A pause that ends with the peer. */
  #rest(millis) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, millis);
      this.#pause = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async #attempt() {
    this.#opening = new Deadline();
    this.#opening.within(this.#options.answerTimeout, () => new PeerError('no_answer', 'the peer did not answer in time'));
    this.#negotiation.offer().catch((error) => this.#opening.fail(error));
    await this.#opening.promise;
  }

  /** The gateway carries what the peers ask of each other, where it does that at all. */
  #fallBack(error) {
    this.#foundNone(error);
    const isAbsent = isPointless(error.cause ?? error) && error.kind !== 'no_webrtc';
    const carries = ['EXEC_REQUEST', 'EXEC_RESPONSE'].every((type) => this.#port.relays(type));
    if (this.#isOver || !this.#options.fallback || isAbsent || !carries) {
      if (!this.#isOver) this.#negotiation.withdraw();
      this.finish(peerError(error));
      throw peerError(error);
    }
    this.path = 'gateway';
    this.#connectMs = performance.now() - this.#since;
    this.#enter('connected');
    return this;
  }

  #unopened() {
    return new PeerError('no_path', 'no way between the two was found in time');
  }

  #refused(error) {
    if (!this.#hasOpened) this.#opening.fail(error);
    else if (error.reason === 'unknown_connection') this.finish(new PeerError('lost', 'the peer began anew', { cause: error }));
    else if (this.state === 'connecting') this.#restartLater();
  }

  get #hasOpened() {
    return this.path === 'direct';
  }

  #begun(transport) {
    const control = new Channel(RESERVED, { isFramed: true, maxMessageBytes: MAX_CONTROL_BYTES }, this.#port.report);
    // The one before belongs to a connection that came to nothing.
    this.#control?.end();
    this.#control = control;
    control.attach(transport.control, () => transport.maxPiece);
    control.onMessage((text) => this.#heard(text));
    this.#settled = control.opened.then(() => new Promise((resolve) => setTimeout(resolve, SETTLES)));
    this.#settled.catch(() => {});
    control.opened.then(() => control === this.#control && this.#opened(), () => {});
    control.onClose((error) => control === this.#control && this.#controlEnded(error));
  }

  #opened() {
    this.path = 'direct';
    if (this.#connectMs === null) this.#foundOne(performance.now() - this.#since);
    this.#opening.done();
    this.#ready.done(this);
    this.#enter('connected');
  }

  #foundOne(millis) {
    this.#connectMs = millis;
    this.stats().then(({ pair }) => pair && this.#port.cameOut(pair, millis), () => {});
  }

  /** Descriptions were exchanged, and all the same there is no way; other failures say nothing of networks. */
  #foundNone(error) {
    const isNoWay = this.#hasSought && (error.kind === 'no_path' || error.kind === 'timeout');
    if (isNoWay && !this.#isOver) this.#port.cameOut(null, performance.now() - this.#since);
  }

  #sought() {
    this.#hasSought = true;
    this.#opening.within(this.#options.openTimeout, () => this.#unopened());
  }

  /** One after the other: to verify takes its time, and the order is part of what is said. */
  #heard(text) {
    this.#unheard += text.length;
    if (this.#unheard > MAX_UNHEARD_LETTERS) {
      this.finish(tooFast());
      return;
    }
    this.#hearing
      .run(() => this.#port.heard(this, text))
      .catch((error) => this.finish(tooFast(error)))
      .finally(() => {
        this.#unheard -= text.length;
      });
  }

  /** The other side closes by its control channel; that ours closes with its connection says nothing new. */
  #controlEnded(error) {
    if (this.#isOver || !this.#hasOpened || this.state === 'disconnecting') return;
    this.finish(error && new PeerError('broken', 'the control channel broke', { cause: error }));
  }

  // ---- Staying connected --------------------------------------------------------------------------

  #changed() {
    const { state } = this.#negotiation.transport;
    if (!this.#hasOpened) {
      if (state === 'failed') this.#opening.fail(this.#unopened());
      return;
    }
    if (this.state === 'disconnecting' || this.#isOver) return;
    if (state === 'connected') this.#back();
    else if (state === 'closed') this.finish(new PeerError('lost', 'the connection to the peer is lost'));
    else if (state === 'failed') this.#restartIn(this.#patience(0));
    else if (state === 'disconnected') this.#restartIn(this.#patience(INTERRUPTED));
  }

  #patience(millis) {
    return this.#negotiation.isInitiator ? millis : millis + ANSWERER_WAITS;
  }

  #back() {
    clearTimeout(this.#restarting);
    this.#restarting = null;
    this.#restarts = 0;
    this.#enter('connected');
  }

  #restartLater() {
    clearTimeout(this.#restarting);
    this.#restarting = null;
    this.#restartIn(FIRST_PAUSE * 2 ** Math.max(this.#restarts - 1, 0));
  }

  #restartIn(millis) {
    this.#enter('connecting');
    this.#restarting ??= setTimeout(() => this.#restart(), millis);
  }

  /** Each attempt either changes the state of the connection, or is followed by the next. */
  #restart() {
    if (this.#isOver || this.#negotiation.transport.state === 'connected') return;
    if (this.#restarts >= this.#options.restarts) {
      this.finish(new PeerError('lost', `the connection to the peer is lost, and ${this.#restarts} restarts did not help`));
      return;
    }
    this.#restarts += 1;
    this.#restarting = setTimeout(() => this.#restartLater(), this.#options.openTimeout);
    this.#negotiation.restart().catch(() => this.#isOver || this.#restartLater());
  }

  // ---- Channels -------------------------------------------------------------------------------------

  #offeredChannel(native, limit) {
    const channel = Channel.of(native, this.#port.report, this.#options.maxMessageBytes);
    this.#keep(channel);
    channel.attach(native, limit);
    if (!this.#channelHandlers.isEmpty) this.#channelHandlers.call(channel);
    else if (this.#earlyChannels.length < MAX_EARLY_CHANNELS) this.#earlyChannels.push(channel);
    else channel.close();
  }

  #keep(channel) {
    this.#channels.add(channel);
    channel.onClose(() => this.#channels.delete(channel));
  }

  #enter(state) {
    if (this.state === state) return;
    this.state = state;
    this.#states.call(state);
  }
}

function isPointless(error) {
  return error.kind === 'no_webrtc' || POINTLESS.has(error.kind) || POINTLESS_REASONS.has(error.reason);
}

function peerError(error) {
  if (error instanceof PeerError) return error;
  return new PeerError('refused', `no connection to the peer: ${error.message}`, { cause: error });
}

function tooFast(cause) {
  return new PeerError('too_fast', 'messages come faster than they are verified', { cause });
}

// A data channel: messages of any size, and sending that waits while too much is unsent.
//
// Wraps an RTCDataChannel. `peer` makes them, and its own control channel is one, too.

import { ChannelError } from '../errors.js';
import { Handlers } from '../handlers.js';
import { Serial } from '../serial.js';
import { Joiner, MAX_PIECE, split, toBytes } from './framing.js';

/** The protocol of framed channels; an application's own follows after a slash. */
export const FRAMED = 'conexus.v1';
/** Labels that begin so are not for applications. */
export const RESERVED = 'conexus';

/** Sending waits while more than this is unsent. */
const HIGH_WATER = 1024 * 1024;
/** How often a full buffer is looked at where the engine has no event for it. */
const LOOK_EVERY = 5;
/** Sends of one channel that wait for each other. */
const MAX_WAITING = 256;
/** The largest message that a channel joins, unless said otherwise. */
export const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
/** What a raw channel carries at most. */
const MAX_RAW = 64 * 1024;

export class Channel {
  #native = null;
  #joiner;
  #limit;
  #sending = new Serial(MAX_WAITING);
  #messages;
  #closes;
  #early = [];
  #earlyBytes = 0;
  #report;
  #opened;
  #closed;
  #resolveOpen;
  #rejectOpen;
  #resolveClosed;
  #nativeLimit = () => MAX_PIECE;

  /** `options` as those of `openChannel`; `report` is told what a handler throws. */
  constructor(label, options, report) {
    const { ordered = true, maxRetransmits, maxPacketLifeTime, protocol = '' } = options;
    this.label = label;
    this.ordered = ordered;
    this.maxRetransmits = maxRetransmits ?? null;
    this.maxPacketLifeTime = maxPacketLifeTime ?? null;
    this.protocol = protocol;
    /** Whether messages of any size may be sent. */
    this.isFramed = options.isFramed ?? (ordered && this.maxRetransmits === null && this.maxPacketLifeTime === null);
    this.#limit = options.maxMessageBytes ?? MAX_MESSAGE_BYTES;
    this.#joiner = new Joiner(this.#limit);
    this.#report = report;
    this.#messages = new Handlers(report);
    this.#closes = new Handlers(report);
    this.#opened = new Promise((resolve, reject) => {
      this.#resolveOpen = resolve;
      this.#rejectOpen = reject;
    });
    // Whoever does not wait for it hears of the end by onClose.
    this.#opened.catch(() => {});
    this.#closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.state = 'connecting';
    this.bytesSent = 0;
    this.bytesReceived = 0;
  }

  /** One that the other side opened. */
  static of(native, report, maxMessageBytes) {
    const isFramed = native.protocol === FRAMED || native.protocol.startsWith(`${FRAMED}/`);
    const protocol = isFramed ? native.protocol.slice(FRAMED.length + 1) : native.protocol;
    const { ordered, maxRetransmits, maxPacketLifeTime } = native;
    const options = { ordered, maxRetransmits, maxPacketLifeTime, protocol, isFramed, maxMessageBytes };
    return new Channel(native.label, options, report);
  }

  /** What an RTCDataChannel is made with. */
  get nativeOptions() {
    const options = { ordered: this.ordered, protocol: this.#nativeProtocol };
    if (this.maxRetransmits !== null) options.maxRetransmits = this.maxRetransmits;
    if (this.maxPacketLifeTime !== null) options.maxPacketLifeTime = this.maxPacketLifeTime;
    return options;
  }

  get #nativeProtocol() {
    if (!this.isFramed) return this.protocol;
    return this.protocol === '' ? FRAMED : `${FRAMED}/${this.protocol}`;
  }

  /** Gives it the RTCDataChannel that carries it from now on; `limit` tells what that takes at once. */
  attach(native, limit) {
    this.#native = native;
    this.#nativeLimit = limit;
    native.binaryType = 'arraybuffer';
    native.onopen = () => this.#open();
    native.onmessage = ({ data }) => native === this.#native && this.#received(data);
    native.onclose = () => native === this.#native && this.end();
    // What went wrong ends the channel, which is told by `close`.
    native.onerror = () => {};
    if (native.readyState === 'open') this.#open();
  }

  /** Resolves when messages can be sent; rejects with a ChannelError when it was closed before. */
  get opened() {
    return this.#opened;
  }

  /** Resolves when it has ended. */
  get closed() {
    return this.#closed;
  }

  /** Bytes that are handed over and unsent. */
  get bufferedAmount() {
    return this.#native?.bufferedAmount ?? 0;
  }

  /** Calls `handler` with each message: a string or an ArrayBuffer. What came before the first handler waits for it. */
  onMessage(handler) {
    const remove = this.#messages.add(handler);
    this.#earlyBytes = 0;
    for (const message of this.#early.splice(0)) this.#messages.call(message);
    return remove;
  }

  /** Calls `handler` with null, or the ChannelError that ended it. */
  onClose(handler) {
    return this.#closes.add(handler);
  }

  /** Sends a message; resolves once all of it is handed over, with at most 1 MiB of all unsent. */
  async send(data) {
    const message = toBytes(data);
    const limit = this.isFramed ? this.#limit : Math.min(MAX_RAW, this.#nativeLimit());
    if (message.bytes.length > limit) {
      const bytes = message.bytes.length;
      throw new ChannelError('too_large', `the message takes ${bytes} bytes of at most ${limit}`, { bytes, limit });
    }
    if (!this.isFramed) return this.#sending.run(() => this.#put(data, message.bytes.length));
    return this.#sending.run(async () => {
      for (const piece of split(message, this.#nativeLimit())) await this.#put(piece, piece.length);
    });
  }

  /** Ends it, once what is handed over is sent. */
  close() {
    if (this.state === 'closed' || this.state === 'closing') return this.#closed;
    this.state = 'closing';
    if (this.#native) this.#native.close();
    else this.end();
    return this.#closed;
  }

  /** It has ended; `error` says why, where it should not have. */
  end(error = null) {
    if (this.state === 'closed') return;
    this.state = 'closed';
    const native = this.#native;
    this.#native = null;
    native?.close();
    this.#early = [];
    this.#rejectOpen(error ?? new ChannelError('closed', 'the channel was closed'));
    this.#resolveClosed();
    this.#closes.call(error);
  }

  async #put(piece, bytes) {
    await this.#opened;
    await this.#room();
    if (this.state !== 'open') throw new ChannelError('closed', 'the channel is closed');
    try {
      this.#native.send(piece);
    } catch (error) {
      throw new ChannelError('failed', `the channel does not take it: ${error.message}`, { cause: error });
    }
    this.bytesSent += bytes;
  }

  /** Waits until less than half of what may be unsent is. */
  async #room() {
    if (this.bufferedAmount <= HIGH_WATER) return;
    const native = this.#native;
    const hasEvent = 'bufferedAmountLowThreshold' in native;
    if (hasEvent) native.bufferedAmountLowThreshold = HIGH_WATER / 2;
    while (this.state === 'open' && native.bufferedAmount > HIGH_WATER / 2) {
      await new Promise((resolve) => {
        const done = () => {
          clearTimeout(timer);
          native.removeEventListener('bufferedamountlow', done);
          resolve();
        };
        // With the event this is for a channel that ends meanwhile.
        const timer = setTimeout(done, hasEvent ? 250 : LOOK_EVERY);
        native.addEventListener('bufferedamountlow', done);
      });
    }
  }

  #open() {
    if (this.state !== 'connecting') return;
    this.state = 'open';
    this.#resolveOpen();
  }

  #received(data) {
    let message;
    try {
      this.bytesReceived += typeof data === 'string' ? data.length : data.byteLength;
      message = this.isFramed ? this.#joiner.take(data) : data;
    } catch (error) {
      this.#report(error);
      this.end(error);
      return;
    }
    if (message === undefined) return;
    if (!this.#messages.isEmpty) this.#messages.call(message);
    else this.#keep(message);
  }

  #keep(message) {
    this.#earlyBytes += typeof message === 'string' ? message.length : message.byteLength;
    this.#early.push(message);
    if (this.#earlyBytes > this.#limit || this.#early.length > 1024) {
      this.end(new ChannelError('unheard', 'too much arrived before anybody listened'));
    }
  }
}

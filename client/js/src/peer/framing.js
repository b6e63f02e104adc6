// Messages on a channel, in pieces: what is larger than one SCTP message is split, and joined again.
//
// A piece is a byte of flags and what it carries. Channels that keep order and lose nothing are framed, so the
// pieces of a message stand together. docs/webrtc.md has the format.

import { ChannelError } from '../errors.js';
import { fromUtf8, utf8 } from '../protocol/bytes.js';

const LAST = 0x01;
const TEXT = 0x02;

/** A piece with its flags. Every stack takes that much at once. */
export const MAX_PIECE = 32 * 1024;

/** The bytes of a message, and whether it is text; a TypeError for what is neither text nor bytes. */
export function toBytes(data) {
  if (typeof data === 'string') return { isText: true, bytes: utf8(data) };
  if (data instanceof ArrayBuffer) return { isText: false, bytes: new Uint8Array(data) };
  if (ArrayBuffer.isView(data)) {
    return { isText: false, bytes: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
  }
  throw new TypeError('a message is a string, an ArrayBuffer or a view of one');
}

/** The pieces of a message, each of at most `size` bytes. */
export function* split({ isText, bytes }, size) {
  const room = Math.min(size, MAX_PIECE) - 1;
  for (let at = 0; at === 0 || at < bytes.length; at += room) {
    const part = bytes.subarray(at, at + room);
    const piece = new Uint8Array(part.length + 1);
    piece[0] = (isText ? TEXT : 0) | (at + room >= bytes.length ? LAST : 0);
    piece.set(part, 1);
    yield piece;
  }
}

/** Puts messages together again, none larger than `limit` bytes. */
export class Joiner {
  #parts = [];
  #bytes = 0;
  #isText = null;
  #limit;

  constructor(limit) {
    this.#limit = limit;
  }

  /** The message that this piece completes (a string or an ArrayBuffer), else undefined; throws a ChannelError. */
  take(data) {
    if (!(data instanceof ArrayBuffer) || data.byteLength === 0) throw broken('a piece is at least a byte');
    const piece = new Uint8Array(data);
    const [flags] = piece;
    if (flags & ~(LAST | TEXT)) throw broken('a piece with unknown flags');
    const isText = (flags & TEXT) !== 0;
    if (this.#isText !== null && this.#isText !== isText) throw broken('pieces of two messages are mixed');
    if (piece.length === 1 && !(flags & LAST)) throw broken('a piece without anything in it');
    this.#bytes += piece.length - 1;
    if (this.#bytes > this.#limit) {
      throw new ChannelError('too_large', `a message of more than ${this.#limit} bytes arrived`);
    }
    this.#isText = isText;
    this.#parts.push(piece.subarray(1));
    return flags & LAST ? this.#complete() : undefined;
  }

  #complete() {
    const whole = new Uint8Array(this.#bytes);
    let at = 0;
    for (const part of this.#parts) {
      whole.set(part, at);
      at += part.length;
    }
    const isText = this.#isText;
    this.#parts = [];
    this.#bytes = 0;
    this.#isText = null;
    if (!isText) return whole.buffer;
    try {
      return fromUtf8(whole);
    } catch (error) {
      throw broken('a text that is not utf-8', error);
    }
  }
}

function broken(what, cause) {
  return new ChannelError('framing', `broken framing: ${what}`, { cause });
}

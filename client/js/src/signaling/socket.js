// A WebSocket as the rest wants it: texts in order, one end, sending that waits for room.
//
// Nothing else in this module touches the socket. What arrives before somebody listens waits in a bounded list.

import { ConnectError, SendError } from '../errors.js';
import { Close } from './close.js';

/** More than this is not put into the socket's buffer; it waits in its caller. */
const HIGH_WATER = 1024 * 1024;
/** How often a full buffer is looked at: there is no event for it. */
const LOOK_EVERY = 10;
/** What may arrive before anybody listens, registration included. */
const MAX_EARLY = 64;

export class Socket {
  #socket;
  #early = [];
  #receive = null;
  #ended = null;
  #onEnd = null;

  /** Opens one. `WebSocket` is the constructor to use; it may be another library's. */
  static open(WebSocket, url, protocols, signal) {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const socket = construct(WebSocket, url, protocols);
      const wrapped = new Socket(socket);
      const aborted = () => {
        socket.close();
        reject(signal.reason);
      };
      signal.addEventListener('abort', aborted, { once: true });
      socket.onopen = () => {
        signal.removeEventListener('abort', aborted);
        if (!signal.aborted) resolve(wrapped);
      };
      wrapped.#onEnd = (close) => {
        signal.removeEventListener('abort', aborted);
        const cause = 'the gateway cannot be reached, or refused the upgrade (an engine does not say which)';
        reject(new ConnectError('unreachable', cause, { close }));
      };
    });
  }

  constructor(socket) {
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    socket.onmessage = ({ data }) => this.#arrived(data);
    socket.onclose = ({ code, reason }) => this.#end(new Close(code, reason ?? ''));
    // Browsers tell the end by `close`, in the same turn; Node 20 tells a failure to connect by this alone.
    socket.onerror = () => setTimeout(() => this.#end(new Close(1006, '')), 0);
  }

  /** The subprotocol that the gateway chose. */
  get protocol() {
    return this.#socket.protocol;
  }

  /** From now on `receive` gets each text (null for a binary frame), and `ended` the close, once. */
  listen(receive, ended) {
    this.#receive = receive;
    this.#onEnd = ended;
    for (const data of this.#early.splice(0)) receive(data);
    if (this.#ended) ended(this.#ended);
  }

  /** What comes now waits for the next one who listens. */
  unlisten() {
    this.#receive = null;
    this.#onEnd = null;
  }

  /** Whether a text can be handed over at all. */
  get isOpen() {
    return this.#socket.readyState === 1;
  }

  /** Hands a text over, and waits while too much is unsent. */
  async send(text, { timeout }) {
    const patience = performance.now() + timeout;
    while (this.isOpen && this.#socket.bufferedAmount > HIGH_WATER) {
      if (performance.now() > patience) throw new SendError('timeout', `the socket took nothing within ${timeout} ms`);
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
    }
    if (!this.isOpen) throw new SendError('connection_lost', 'the connection is lost');
    this.#socket.send(text);
  }

  close(code = 1000, reason = '') {
    this.#socket.close(code, reason);
  }

  #arrived(data) {
    const text = typeof data === 'string' ? data : null;
    if (this.#receive) this.#receive(text);
    else if (this.#early.length < MAX_EARLY) this.#early.push(text);
    else this.close(4000, 'too much at once');
  }

  #end(close) {
    if (this.#ended) return;
    this.#ended = close;
    this.#onEnd?.(close);
  }
}

function construct(WebSocket, url, protocols) {
  try {
    return new WebSocket(url, protocols);
  } catch (error) {
    throw new ConnectError('url', `the url cannot be dialed: ${error.message}`, { cause: error });
  }
}

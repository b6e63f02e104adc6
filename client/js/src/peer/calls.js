// Asking and answering: EXEC_REQUEST and EXEC_RESPONSE, INTENT, PING and PONG, over whichever way there is.
//
// One for each client. A message is signed like any other; an answer has the id of what it answers as its
// correlation id and takes the way that the question came. docs/webrtc.md says what the words of `status` mean.

import { ChannelError, RequestError, Refused } from '../errors.js';
import { Handlers } from '../handlers.js';
import { Inquiry } from './inquiry.js';
import { Parts } from './parts.js';
import { Task } from './task.js';
import { Way } from './way.js';

/** Requests under way, of one agent and of all, in each direction. */
const PER_AGENT = 64;
const IN_ALL = 1024;
const DEFAULT_TIMEOUT = 30_000;
/** A timer's longest. */
const MAX_TIMEOUT = 2 ** 31 - 1;
/** Of these the gateway carries what it says it carries. */
const APPLICATION = new Set(['INTENT', 'EXEC_REQUEST', 'EXEC_RESPONSE', 'ERROR', 'PING', 'PONG']);

export class Calls {
  #port;
  /** What we asked, by message id. */
  #inquiries = new Map();
  /** What we were asked, by agent and message id. */
  #tasks = new Map();
  #serve = null;
  #answerIntent = null;
  #others;

  /** `port`: `sayDirect(peer, draft)`, `sayByGateway(draft)`, `relays(type)`, `isFresh(key, message)`, `report`. */
  constructor(port) {
    this.#port = port;
    this.#others = new Handlers(port.report);
  }

  /** Who does what others ask (one handler); returns the function that takes it away. */
  onRequest(handler) {
    this.#serve = handler;
    return () => {
      if (this.#serve === handler) this.#serve = null;
    };
  }

  /** Who answers INTENTs (one handler). */
  onIntent(handler) {
    this.#answerIntent = handler;
    return () => {
      if (this.#answerIntent === handler) this.#answerIntent = null;
    };
  }

  async request(peer, args = {}, { timeout = DEFAULT_TIMEOUT, signal, onProgress, onPart, stream } = {}) {
    const payload = { args, timeout_ms: patience(timeout), stream: stream ?? onPart !== undefined };
    const inquiry = new Inquiry({ type: 'EXEC_RESPONSE', onProgress, onPart, report: this.#port.report });
    return this.#ask(peer, { type: 'EXEC_REQUEST', payload }, inquiry, timeout, signal);
  }

  async *stream(peer, args, { signal, ...options } = {}) {
    const cancel = new AbortController();
    const parts = new Parts(cancel);
    const signals = signal ? AbortSignal.any([signal, cancel.signal]) : cancel.signal;
    const result = this.request(peer, args, { ...options, signal: signals, stream: true, onPart: (part) => parts.push(part) });
    result.then(() => parts.end(), () => parts.end());
    try {
      yield* parts.read();
      return await result;
    } finally {
      // Whoever stops reading wants no more.
      cancel.abort(new RequestError('cancelled', 'the reader stopped'));
      result.catch(() => {});
    }
  }

  async intent(peer, payload, { timeout = DEFAULT_TIMEOUT, signal } = {}) {
    const inquiry = new Inquiry({ type: 'INTENT', report: this.#port.report });
    return this.#ask(peer, { type: 'INTENT', payload }, inquiry, timeout, signal);
  }

  async ping(peer, { timeout = DEFAULT_TIMEOUT, signal } = {}) {
    if (peer.path !== 'direct') throw new RequestError('unsupported', 'a PING by way of the gateway is answered by the gateway');
    const began = performance.now();
    const inquiry = new Inquiry({ type: 'PONG', report: this.#port.report });
    await this.#ask(peer, { type: 'PING', payload: {} }, inquiry, timeout, signal);
    return performance.now() - began;
  }

  /** Takes a verified message if it is for here; `peer` is null where it came by the gateway. */
  take(message, key, peer) {
    if (!APPLICATION.has(message.type)) return false;
    const inquiry = this.#inquiries.get(message.correlationId);
    if (inquiry?.key === key && inquiry.peer === peer) {
      this.#answered(inquiry, message);
      return true;
    }
    if (message.type === 'ERROR') return this.#cancelled(message, key);
    const way = new Way(this.#port, peer, message);
    if (message.type === 'EXEC_REQUEST') return this.#requested(message, key, way);
    if (message.type === 'INTENT' && message.correlationId === null) return this.#intended(message, key, way);
    if (message.type === 'PING' && peer) {
      way.say('PONG', { sequence: message.payload.sequence });
      return true;
    }
    // An answer that came too late.
    return peer !== null;
  }

  /** The gateway says no to something that went by way of it. */
  takeRefusal(message) {
    const inquiry = this.#inquiries.get(message.correlationId);
    if (!inquiry || inquiry.peer !== null) return false;
    this.#answered(inquiry, message);
    return true;
  }

  /** The way to an agent is gone, and with it what was under way on it. */
  drop(peer, error) {
    for (const inquiry of [...this.#inquiries.values()]) {
      if (inquiry.peer === peer) inquiry.fail(new RequestError('lost', 'the connection to the peer ended', { cause: error }));
    }
    for (const task of [...this.#tasks.values()]) if (task.peer === peer) task.cancel('the connection to the peer ended');
  }

  /** Everything ends with the client. */
  endAll(error) {
    for (const inquiry of [...this.#inquiries.values()]) inquiry.fail(error);
    for (const task of [...this.#tasks.values()]) task.cancel('the client was closed');
  }

  async #ask(peer, draft, inquiry, timeout, signal) {
    signal?.throwIfAborted();
    const millis = patience(timeout);
    const direct = peer.path === 'direct' ? peer : null;
    if (peer.path === null) throw new RequestError('not_connected', `the peer is ${peer.state}`);
    if (!direct && !this.#port.relays(draft.type)) {
      throw new RequestError('not_relayed', `the gateway does not carry ${draft.type}`);
    }
    if (this.#isCrowded(this.#inquiries, peer.key)) throw new RequestError('busy', 'too many requests are under way');
    const id = globalThis.crypto.randomUUID();
    inquiry.key = peer.key;
    inquiry.peer = direct;
    this.#inquiries.set(id, inquiry);
    const way = new Way(this.#port, direct, { id, from: peer.did });
    const giveUp = (error, reason) => {
      inquiry.fail(error);
      if (draft.type === 'EXEC_REQUEST') way.refuse('TIMEOUT', 'no longer wanted', reason);
    };
    const aborted = () => giveUp(signal.reason, 'cancelled');
    const timer = setTimeout(() => giveUp(new RequestError('timeout', `no answer within ${millis} ms`), 'timeout'), millis);
    signal?.addEventListener('abort', aborted, { once: true });
    way.ask(id, draft).catch((error) => inquiry.fail(asLost(error)));
    try {
      return await inquiry.outcome;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', aborted);
      this.#inquiries.delete(id);
    }
  }

  #answered(inquiry, message) {
    if (message.type === 'ERROR') inquiry.fail(new Refused(message));
    else inquiry.take(message);
  }

  #cancelled(message, key) {
    const task = this.#tasks.get(`${key} ${message.correlationId}`);
    if (!task) return false;
    task.cancel('the other side does not want it any more');
    return true;
  }

  #requested(message, key, way) {
    // Without a handler a request by way of the gateway is a message like any other.
    if (!this.#serve && way.peer === null) return false;
    if (!this.#serve) way.refuse('CONNECTION_REFUSED', 'nothing is done on request here', 'not_served');
    else if (this.#isNew(message, key, way)) this.#start(message, key, way, this.#serve);
    return true;
  }

  #intended(message, key, way) {
    if (!this.#answerIntent && way.peer === null) return false;
    if (!this.#answerIntent) way.refuse('CONNECTION_REFUSED', 'intents are not answered here', 'not_served');
    else if (this.#isNew(message, key, way)) this.#start(message, key, way, this.#answerIntent);
    return true;
  }

  /** The channel itself lets nothing through twice; the gateway could. */
  #isNew(message, key, way) {
    const isNew = !this.#tasks.has(`${key} ${message.id}`) && (way.peer !== null || this.#port.isFresh(key, message));
    if (!isNew) this.#port.report(new RequestError('replayed', `a ${message.type} that is old, or came before, is ignored`));
    else if (!this.#isCrowded(this.#tasks, key)) return true;
    else way.refuse('CONNECTION_REFUSED', 'too many requests are under way', 'busy');
    return false;
  }

  #start(message, key, way, handler) {
    const name = `${key} ${message.id}`;
    const task = new Task(message, key, way, this.#port.report);
    this.#tasks.set(name, task);
    task.run(handler).finally(() => this.#tasks.delete(name));
  }

  #isCrowded(under, key) {
    if (under.size >= IN_ALL) return true;
    let own = 0;
    for (const one of under.values()) own += one.key === key;
    return own >= PER_AGENT;
  }
}

/** A channel that closes before the question is on it takes it along, as it does one that is. */
function asLost(error) {
  const isLost = error instanceof ChannelError && error.kind === 'closed';
  return isLost ? new RequestError('lost', 'the connection to the peer ended', { cause: error }) : error;
}

function patience(timeout) {
  if (!(timeout > 0)) throw new TypeError('a timeout is a number of milliseconds above 0');
  return Math.min(Math.round(timeout), MAX_TIMEOUT);
}

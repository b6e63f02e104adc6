// The way to the handlers: a bounded queue, emptied one event after the other.
//
// A handler's promise is waited for before the next event. One that throws harms no other; error handlers
// hear of it. A browser's socket cannot be told to wait, so when the queue is full the connection ends.

import { ConexusError, HandlerFailed } from '../errors.js';

export class Dispatcher {
  #handlers = { message: new Set(), error: new Set(), state: new Set() };
  #queue = [];
  #bytes = 0;
  #limits;
  #running = false;
  #untold = 0;
  #idle = [];

  /** `events` messages may wait, of `bytes` characters in all. */
  constructor(limits) {
    this.#limits = limits;
  }

  /** Adds a handler of `message`, `error` or `state`; returns the function that takes it away. */
  add(event, handler) {
    if (typeof handler !== 'function') throw new TypeError('a handler is a function');
    const entry = { handler };
    this.#handlers[event].add(entry);
    return () => this.#handlers[event].delete(entry);
  }

  /** Whether another message would be too much. */
  get isFull() {
    return this.#queue.length >= this.#limits.events || this.#bytes >= this.#limits.bytes;
  }

  /** `message`, `error` or `state` for its handlers; `call` for one handler and a word to it. */
  push(event, value) {
    if (event === 'error' && this.isFull) {
      // Whoever floods us with what is wrong does not fill our memory by it.
      this.#untold += 1;
      return;
    }
    const bytes = event === 'message' ? value.text.length : 0;
    this.#bytes += bytes;
    this.#queue.push({ event, value, bytes });
    if (!this.#running) this.#run();
  }

  /** Resolves when the handlers have had everything. */
  idle() {
    return this.#running ? new Promise((resolve) => this.#idle.push(resolve)) : Promise.resolve();
  }

  async #run() {
    this.#running = true;
    // Handlers are never called by whoever causes an event.
    await null;
    while (this.#queue.length > 0) {
      const { event, value, bytes } = this.#queue.shift();
      this.#bytes -= bytes;
      if (event === 'call') await this.#callOne(value);
      else await this.#call(event, value);
      if (this.#queue.length === 0 && this.#untold > 0) await this.#tellUntold();
    }
    this.#running = false;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  async #tellUntold() {
    const untold = this.#untold;
    this.#untold = 0;
    await this.#call('error', new ConexusError('errors_untold', `${untold} more errors came faster than they were handled`));
  }

  /** A handler of something narrower, as of a watch. */
  async #callOne({ handler, word }) {
    try {
      await handler(word);
    } catch (cause) {
      await this.#call('error', new HandlerFailed(cause));
    }
  }

  async #call(event, value) {
    for (const { handler } of [...this.#handlers[event]]) {
      try {
        await handler(value);
      } catch (cause) {
        // Not told to error handlers when one of them failed: that could go round in circles.
        if (event === 'error') reportFailure(cause);
        else await this.#call('error', new HandlerFailed(cause));
      }
    }
    if (event === 'error' && this.#handlers.error.size === 0) console.warn('conexus:', value);
  }
}

/** What nobody else can be told of. */
export function reportFailure(cause) {
  console.error('conexus: a handler of errors failed:', cause);
}

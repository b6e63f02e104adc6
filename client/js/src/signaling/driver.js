// The driver: from connection to connection, as the reconnect policy says. It alone moves the state.

import { ConexusError, ConnectError } from '../errors.js';
import { Backoff } from './backoff.js';
import { Link } from './link.js';
import { establish } from './register.js';

export class Driver {
  #config;
  #sinks;
  #metadata;
  #stop = new AbortController();
  #backoff;
  #over;
  #state;
  #stopped;

  /** `enter(state, link)` is told of each state; `metadata()` says what to publish. */
  constructor(config, sinks, { enter, metadata }) {
    this.#config = config;
    this.#sinks = sinks;
    this.#state = enter;
    this.#metadata = metadata;
    this.#backoff = config.reconnect === false ? null : new Backoff(config.reconnect);
    /** Resolves when nothing runs any more. */
    this.over = new Promise((resolve) => {
      this.#over = resolve;
    });
    this.#stopped = new Promise((resolve) => {
      this.#stop.signal.addEventListener('abort', () => resolve(null), { once: true });
    });
  }

  /** The first connection; throws a ConnectError. What follows goes on by itself. */
  async start() {
    let link;
    try {
      link = await this.#attempt().catch((error) => this.#retryFirst(error));
    } catch (error) {
      this.#finish(error.kind === 'closed' ? 'disconnected' : 'error');
      throw error;
    }
    this.#run(link).catch((error) => this.#finish('error', error));
  }

  /** Ends whatever is under way; resolves when it has ended. */
  async stop() {
    this.#stop.abort();
    await this.over;
  }

  async #retryFirst(error) {
    if (!this.#config.retryFirst || this.#backoff === null || error.isFinal) throw error;
    this.#tell(error);
    return this.#retry(error.close?.reconnectIn ?? null);
  }

  async #run(first) {
    let link = first;
    while (link !== null) {
      const since = performance.now();
      const lost = await Promise.race([link.ended, this.#stopped]);
      this.#backoff?.sessionHeld(performance.now() - since);
      if (lost === null) {
        this.#state('disconnecting', null);
        await link.farewell(this.#config.closeTimeout);
        break;
      }
      link = await this.#lost(lost);
    }
    this.#finish(this.#stop.signal.aborted ? 'disconnected' : 'error');
  }

  /** The next link, or null when there is none to come. */
  async #lost(lost) {
    const isFinal = this.#backoff === null || lost.close?.isFinal === true;
    this.#tell(lost);
    this.#state(isFinal ? 'error' : 'disconnected', null);
    if (isFinal) return null;
    try {
      return await this.#retry(lost.close?.reconnectIn ?? null);
    } catch {
      // Error handlers know already what is wrong.
      return null;
    }
  }

  /** Attempt after attempt, until one succeeds, is final, or none is left. */
  async #retry(hint) {
    let wait = hint;
    for (;;) {
      const delay = this.#backoff.nextDelay(wait);
      const { attempts } = this.#backoff;
      if (delay === null) {
        const error = new ConnectError('gave_up', `gave up after ${attempts} attempts to connect`);
        this.#tell(error);
        throw error;
      }
      this.#state('disconnected', null);
      await this.#pause(delay);
      try {
        return await this.#attempt();
      } catch (error) {
        if (error.kind === 'closed') throw error;
        this.#tell(error);
        if (error.isFinal) throw error;
        wait = error.close?.reconnectIn ?? null;
      }
    }
  }

  async #attempt() {
    if (this.#stop.signal.aborted) throw closed();
    this.#state('connecting', null);
    const patience = this.#config.connectTimeout;
    const attempt = new AbortController();
    const timer = setTimeout(() => {
      attempt.abort(new ConnectError('timeout', `not connected within ${patience} ms`));
    }, patience);
    const stopped = () => attempt.abort(closed());
    this.#stop.signal.addEventListener('abort', stopped);
    try {
      const registered = await establish(this.#config, this.#metadata(), attempt.signal);
      const link = new Link(this.#config, registered, this.#sinks);
      this.#state('connected', link);
      return link;
    } catch (error) {
      if (attempt.signal.aborted) throw attempt.signal.reason;
      throw error instanceof ConexusError ? error : new ConnectError('internal', error.message, { cause: error });
    } finally {
      clearTimeout(timer);
      this.#stop.signal.removeEventListener('abort', stopped);
    }
  }

  #pause(delay) {
    return new Promise((resolve, reject) => {
      const { signal } = this.#stop;
      if (signal.aborted) {
        reject(closed());
        return;
      }
      const stopped = () => {
        clearTimeout(timer);
        reject(closed());
      };
      const timer = setTimeout(() => {
        signal.removeEventListener('abort', stopped);
        resolve();
      }, delay);
      signal.addEventListener('abort', stopped, { once: true });
    });
  }

  #tell(error) {
    this.#sinks.dispatcher.push('error', error);
  }

  #finish(state, error) {
    if (error) this.#tell(error);
    this.#state(state, null);
    this.#over();
  }
}

function closed() {
  return new ConnectError('closed', 'the client was closed');
}


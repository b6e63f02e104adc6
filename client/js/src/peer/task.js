// Something that another agent asked for, while it is done.
//
// The handler gets this: whom it is for, what is asked, and ways to report on it. Its own errors stay here;
// what the other side is told is what a RequestError says, and else that it failed.

import { HandlerFailed, RequestError } from '../errors.js';

/** How long an EXEC_REQUEST may take that does not say. */
const DEFAULT_TIMEOUT = 30_000;
const MAX_TIMEOUT = 2 ** 31 - 1;

export class Task {
  #message;
  #way;
  #report;
  #abort = new AbortController();
  #began = performance.now();
  #isOver = false;

  constructor(message, key, way, report) {
    this.#message = message;
    this.#way = way;
    this.#report = report;
    this.key = key;
    this.peer = way.peer;
  }

  /** Who asks. */
  get from() {
    return this.#message.from;
  }

  /** The message itself. */
  get message() {
    return this.#message;
  }

  /** What is asked: the args of an EXEC_REQUEST. */
  get args() {
    return this.#message.payload.args ?? {};
  }

  /** Whether the other side wants the parts as they come. */
  get wantsStream() {
    return this.#message.payload.stream === true;
  }

  /** Aborted when nobody wants the result any more. */
  get signal() {
    return this.#abort.signal;
  }

  /** Says how far it is. */
  progress(value) {
    return this.#word('progress', value);
  }

  /** Hands over a part of the result; resolves when there is room for more. */
  part(value) {
    return this.#word('partial', value);
  }

  /** Does it; resolves when it is over, one way or the other. */
  async run(handler) {
    const { type, payload } = this.#message;
    const limit = Math.min(Math.max(Number(payload.timeout_ms ?? DEFAULT_TIMEOUT), 1), MAX_TIMEOUT);
    const timer = setTimeout(() => this.#expire(limit), limit);
    try {
      const outcome = await (type === 'INTENT' ? handler(this.#message) : handler(this));
      if (this.#isOver) return;
      this.#isOver = true;
      if (type === 'INTENT') await this.#way.answer('INTENT', outcome ?? {});
      else await this.#way.answer('EXEC_RESPONSE', this.#response({ result: outcome ?? null, status: 'success' }));
    } catch (error) {
      this.#failed(error);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Nobody wants it any more. */
  cancel(why) {
    this.#isOver = true;
    this.#abort.abort(new RequestError('cancelled', why));
  }

  async #word(status, value) {
    if (this.#isOver) throw this.signal.reason ?? new RequestError('over', 'the request is answered already');
    await this.#way.answer('EXEC_RESPONSE', { result: value ?? null, status });
  }

  #expire(limit) {
    if (this.#isOver) return;
    this.cancel(`not done within ${limit} ms`);
    this.#way.refuse('TIMEOUT', 'not done in time', 'timeout');
  }

  #failed(error) {
    if (!(error instanceof RequestError)) this.#report(new HandlerFailed(error));
    // An answer that cannot be sent, as one that is too large, has to be told as well.
    if (this.signal.aborted) return;
    this.#isOver = true;
    const text = error instanceof RequestError ? error.message : 'the request failed';
    if (this.#message.type === 'INTENT') this.#way.refuse('INTERNAL_ERROR', text, 'failed');
    else this.#way.say('EXEC_RESPONSE', this.#response({ error: text, status: 'error' }));
  }

  #response(payload) {
    return { ...payload, execution_time_ms: Math.round(performance.now() - this.#began) };
  }
}

// The messages whose answers somebody waits for.
//
// Bounded by those who wait: each entry goes with its caller's patience, or with the connection.

import { Refused, SendError } from '../errors.js';

export class Pending {
  #waiting = new Map();

  /** Waits for the answer to the message `id`, by the agent `peer` (a key) or the gateway. */
  expect(id, peer, { timeout, signal }) {
    signal?.throwIfAborted();
    return new Promise((resolve, reject) => {
      const end = () => {
        this.#waiting.delete(id);
        clearTimeout(timer);
        signal?.removeEventListener('abort', aborted);
      };
      const fail = (error) => {
        end();
        reject(error);
      };
      const aborted = () => fail(signal.reason);
      const timer = setTimeout(() => fail(new SendError('timeout', `no answer within ${timeout} ms`)), timeout);
      signal?.addEventListener('abort', aborted);
      const answer = (message) => {
        end();
        if (message.type === 'ERROR') reject(new Refused(message));
        else resolve(message);
      };
      this.#waiting.set(id, { peer, answer, fail });
    });
  }

  /** Gives a message to the one who waits for it; whether somebody did. */
  claim({ message, isGateway, key, mayBeGateway }) {
    const waiting = this.#waiting.get(message.correlationId);
    if (!waiting) return false;
    if (!isGateway && key !== waiting.peer && !mayBeGateway) return false;
    waiting.answer(message);
    return true;
  }

  /** Nobody waits for that answer any more. */
  abandon(id, error) {
    this.#waiting.get(id)?.fail(error);
  }

  /** The connection is over. */
  endAll() {
    const error = new SendError('connection_lost', 'the connection broke before the outcome was known');
    for (const { fail } of [...this.#waiting.values()]) fail(error);
  }
}

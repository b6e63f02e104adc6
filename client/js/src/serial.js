// One thing after the other: steps that wait for each other, and a bound on how many do.

import { ConexusError } from './errors.js';

export class Serial {
  #last = Promise.resolve();
  #waiting = 0;
  #limit;

  constructor(limit) {
    this.#limit = limit;
  }

  /** Runs `step` when all earlier ones have ended, and resolves as it does. */
  run(step) {
    if (this.#waiting >= this.#limit) {
      return Promise.reject(new ConexusError('queue_full', `${this.#limit} steps are waiting already`));
    }
    this.#waiting += 1;
    const done = this.#last.then(step).finally(() => {
      this.#waiting -= 1;
    });
    this.#last = done.catch(() => {});
    return done;
  }
}

// The parts of a stream on their way to their reader: bounded, since nobody can make the other side wait.

import { RequestError } from '../errors.js';

/** Parts that wait for their reader. */
const MAX_PARTS = 1024;

export class Parts {
  #queue = [];
  #isOver = false;
  #wake = null;
  #cancel;

  constructor(cancel) {
    this.#cancel = cancel;
  }

  push(part) {
    this.#queue.push(part);
    if (this.#queue.length > MAX_PARTS) this.#cancel.abort(new RequestError('slow_reader', 'parts came faster than they were read'));
    this.#wake?.();
  }

  end() {
    this.#isOver = true;
    this.#wake?.();
  }

  async *read() {
    for (;;) {
      if (this.#queue.length > 0) yield this.#queue.shift();
      else if (this.#isOver) return;
      else
        await new Promise((resolve) => {
          this.#wake = resolve;
        });
    }
  }
}

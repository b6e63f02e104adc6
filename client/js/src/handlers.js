// Handlers of one event, kept from harming each other.
//
// For what happens too often, or too soon, for a queue: they are called at once, in the order in which they
// were added. One that throws, or whose promise is rejected, is told to `report`.

export class Handlers {
  #handlers = new Set();
  #report;

  constructor(report) {
    this.#report = report;
  }

  /** Returns the function that takes the handler away again. */
  add(handler) {
    if (typeof handler !== 'function') throw new TypeError('a handler is a function');
    const entry = { handler };
    this.#handlers.add(entry);
    return () => this.#handlers.delete(entry);
  }

  get isEmpty() {
    return this.#handlers.size === 0;
  }

  call(value) {
    for (const { handler } of [...this.#handlers]) {
      try {
        const outcome = handler(value);
        if (typeof outcome?.then === 'function') outcome.then(undefined, this.#report);
      } catch (error) {
        this.#report(error);
      }
    }
  }
}

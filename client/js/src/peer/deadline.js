// A wait that ends: by what it waits for, by an error, or by its time, which may be set anew.

/** Settles once. */
export class Deadline {
  #timer = null;
  #resolve;
  #reject;

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever waits is told; that nobody does is no fault.
    this.promise.catch(() => {});
  }

  /** From now on it takes at most that long; then it fails with what `error` makes. */
  within(millis, error) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.fail(error()), millis);
  }

  done(value) {
    clearTimeout(this.#timer);
    this.#resolve(value);
  }

  fail(error) {
    clearTimeout(this.#timer);
    this.#reject(error);
  }
}

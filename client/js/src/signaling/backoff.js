// How long to wait between attempts to reconnect, and when to stop.
//
// Delays double and are spread over half their length, so that agents which lost the same gateway do not
// return all at once. A session that breaks again soon does not start the count anew.

/** The longest wait that a gateway may ask for (`reconnect_in`), in milliseconds. */
const LONGEST_HINT = 300_000;

export const DEFAULT_POLICY = Object.freeze({
  /** The first delay in milliseconds; each further one is twice as long. */
  initial: 1_000,
  /** No delay is longer. */
  max: 30_000,
  /** Attempts in a row before giving up; 0 means never. */
  maxAttempts: 5,
  /** A session that held this long starts the count anew. */
  stableAfter: 10_000,
});

export class Backoff {
  #policy;

  constructor(policy) {
    this.#policy = { ...DEFAULT_POLICY, ...policy };
    /** Attempts handed out since the last stable session. */
    this.attempts = 0;
  }

  /** How long to wait before the next attempt; null when they are used up. A hint is already spread. */
  nextDelay(hint = null) {
    const { initial, max, maxAttempts } = this.#policy;
    if (maxAttempts !== 0 && this.attempts >= maxAttempts) return null;
    const base = Math.min(initial * 2 ** Math.min(this.attempts, 64), max);
    this.attempts += 1;
    return hint === null ? base * (0.5 + Math.random() / 2) : Math.min(hint, LONGEST_HINT);
  }

  /** Takes note of how long a session held. */
  sessionHeld(millis) {
    if (millis >= this.#policy.stableAfter) this.attempts = 0;
  }
}

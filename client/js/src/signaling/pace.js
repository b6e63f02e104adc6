// When to PING, and when a connection is dead.
//
// A PING goes out when either side has been silent for a heartbeat, so that a living gateway has always
// something to answer. Two and a half heartbeats without a word, at least one and a half of them with a PING
// unanswered, mean that it is gone: a page whose timers were held up while its tab slept asks first.

export class Pace {
  #heartbeat;
  #now;

  constructor(heartbeat, now = () => performance.now()) {
    this.#heartbeat = heartbeat;
    this.#now = now;
    this.said = now();
    this.heard = now();
    this.pinged = null;
  }

  onSaid() {
    this.said = this.#now();
  }

  onHeard() {
    this.heard = this.#now();
    this.pinged = null;
  }

  onPinged() {
    this.pinged ??= this.#now();
    this.lastPing = this.#now();
  }

  /** How long until the next look, in milliseconds. */
  get nextCheck() {
    return Math.max(this.#heartbeat / 4, 1);
  }

  get isPingDue() {
    const quiet = Math.max(Math.min(this.said, this.heard), this.lastPing ?? 0);
    return this.#now() - quiet >= this.#heartbeat;
  }

  /** How long the gateway has been silent when that means that it is gone, else null. */
  get silence() {
    const silent = this.#now() - this.heard;
    const asked = this.pinged === null ? 0 : this.#now() - this.pinged;
    return silent >= 2.5 * this.#heartbeat && asked >= 1.5 * this.#heartbeat ? Math.round(silent) : null;
  }
}

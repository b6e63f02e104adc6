// Which OFFERs and requests are new: a valid signature says who wrote a message, not when.
//
// A message counts once, within a minute of its timestamp; its id is remembered until the timestamp alone
// would refuse it. When there is no room another is refused rather than one forgotten. docs/webrtc.md has the
// rule; `peers` asks.

/** How old a message may be, and how far ahead its sender's clock. */
const WINDOW = 60_000;
/** How many ids are remembered, of one agent and in all. */
const PER_AGENT = 256;
const IN_ALL = 8192;

export class Freshness {
  #byAgent = new Map();
  #count = 0;
  #now;

  constructor(now) {
    this.#now = now;
  }

  /** `fresh`, and then never again; or `undated`, `stale`, `replayed`, `full`. */
  judge(key, { id, time }) {
    if (time === null) return 'undated';
    const now = this.#now();
    if (Math.abs(now - time) > WINDOW) return 'stale';
    if (this.#byAgent.get(key)?.has(id)) return 'replayed';
    if (this.#isFull(key)) {
      this.#sweep(now);
      if (this.#isFull(key)) return 'full';
    }
    const ids = this.#byAgent.get(key) ?? new Map();
    this.#byAgent.set(key, ids.set(id, time + WINDOW));
    this.#count += 1;
    return 'fresh';
  }

  #isFull(key) {
    return this.#count >= IN_ALL || (this.#byAgent.get(key)?.size ?? 0) >= PER_AGENT;
  }

  #sweep(now) {
    for (const [key, ids] of this.#byAgent) {
      for (const [id, until] of ids) {
        if (until < now && ids.delete(id)) this.#count -= 1;
      }
      if (ids.size === 0) this.#byAgent.delete(key);
    }
  }
}

// The newest of what the gateway remembers, and what the stream adds to it.
//
// A line that comes again with a later load keeps its key, and so its place on the page: somebody
// may have it open, or marked.

export class Recent {
  #most;
  #kept = [];

  constructor(most) {
    this.#most = most;
  }

  /** Newest first, each with a `key`. */
  get rows() {
    return this.#kept.map(({ row }) => row);
  }

  /** Takes these, newest first, instead of those before. */
  load(entries) {
    this.#kept = [];
    entries.toReversed().forEach((entry) => this.add(entry));
  }

  add(entry) {
    const text = JSON.stringify(entry);
    const twin = this.#kept.find((other) => other.text === text);
    const nth = twin ? twin.nth + 1 : 0;
    this.#kept.unshift({ text, nth, row: { ...entry, key: `${text} ${nth}` } });
    this.#kept.length = Math.min(this.#kept.length, this.#most);
  }
}

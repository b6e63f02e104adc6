// The life of one page: what it began ends when another page takes its place.

import { ApiError } from './api.js';
import { fill, h } from './dom.js';
import { follow, listen } from './live.js';
import { failure } from './parts.js';
import { paused } from './state.js';

export class View {
  #ended = new AbortController();
  #handlers = new Map();
  #drawing = [];
  #dirty = false;

  constructor(main) {
    this.root = h('div.page');
    fill(main, this.root);
    const stop = listen(({ topic, data }) => {
      this.#handlers.get(topic)?.(data);
      this.#dirty = true;
    });
    this.signal.addEventListener('abort', stop);
  }

  /** Aborts when the page ends; for requests. */
  get signal() {
    return this.#ended.signal;
  }

  end() {
    this.#ended.abort();
  }

  /** Hears of topics, a handler each. Handlers keep what comes; `draw` shows it. */
  hear(handlers, agent = null) {
    this.#handlers = new Map(Object.entries(handlers));
    follow([...this.#handlers.keys()], agent);
  }

  /** Draws now, and then at most once a second, when something came and nobody holds the page still. */
  draw(draw) {
    this.#drawing.push(draw);
    draw();
  }

  /** The operator changed what is to be seen, which is shown even on a page that holds still. */
  touch() {
    this.#dirty = false;
    this.#drawing.forEach((draw) => draw());
  }

  tick() {
    if (!this.#dirty || paused() !== null || document.hidden) return;
    this.#dirty = false;
    this.#drawing.forEach((draw) => draw());
  }

  /** Repeats a request while somebody looks, one at a time. */
  every(seconds, refresh) {
    let busy = false;
    const timer = setInterval(async () => {
      if (busy || paused() !== null || document.hidden) return;
      busy = true;
      await refresh();
      busy = false;
    }, seconds * 1000);
    this.signal.addEventListener('abort', () => clearInterval(timer));
  }

  /**
   * Loads what a part of the page shows, and shows what went wrong in its place. What was there
   * before stays when a later attempt fails: old news beats none, and the head says that it is old.
   */
  async load(place, request, show) {
    let shown = false;
    const attempt = async () => {
      try {
        const loaded = await request(this.signal);
        if (this.signal.aborted) return;
        show(loaded);
        shown = true;
      } catch (error) {
        if (this.signal.aborted || error.name === 'AbortError') return;
        if (!(error instanceof ApiError)) throw error;
        if (!shown) fill(place, failure(error, attempt));
      }
    };
    await attempt();
    return attempt;
  }
}

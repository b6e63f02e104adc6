// The life of one page: what it began ends when another page takes its place.

import { ApiError } from './api.js';
import { fill, h } from './dom.js';
import { follow, listen, live } from './live.js';
import { failure } from './parts.js';
import { paused } from './state.js';

export class View {
  #ended = new AbortController();
  #handlers = new Map();
  #drawing = [];
  #dirty = false;
  #again = null;
  /** Whether something has passed that this page did not hear of. */
  #behind = live.link === 'down';
  /** The latest attempt to load what is in a place. */
  #latest = new WeakMap();
  /** What is shown in a place answers this. */
  #answers = new WeakMap();

  constructor(main) {
    this.root = h('div.page');
    fill(main, this.root);
    const stop = listen(({ topic, data }) => {
      if (topic === 'lagged' || (topic === 'link' && data !== 'up')) this.fallBehind();
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

  /**
   * Hears of topics, a handler each. Handlers keep what comes; `draw` shows it. `again` loads anew
   * what handlers keep, after the stream was away or too fast.
   */
  hear(handlers, { agent = null, again = null } = {}) {
    this.#handlers = new Map(Object.entries(handlers));
    this.#again = again;
    follow([...this.#handlers.keys()], agent);
  }

  /** What handlers keep is not all there is: it is loaded anew with the next beat. */
  fallBehind() {
    this.#behind = true;
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
    if (paused() !== null || document.hidden) return;
    // Once the link is up again: what came between a load and the link would be missing as well.
    if (this.#behind && live.link === 'up') {
      this.#behind = false;
      this.#again?.();
    }
    if (!this.#dirty) return;
    this.#dirty = false;
    this.#drawing.forEach((draw) => draw());
  }

  /** Repeats a request while somebody looks, one at a time. */
  every(seconds, refresh) {
    let busy = false;
    const timer = setInterval(async () => {
      if (busy || paused() !== null || document.hidden) return;
      busy = true;
      try {
        await refresh();
      } finally {
        busy = false;
      }
    }, seconds * 1000);
    this.signal.addEventListener('abort', () => clearInterval(timer));
  }

  /**
   * Loads what a part of the page shows, and shows what went wrong in its place. What was there
   * before stays when a later attempt fails: old news beats none, and the head says that it is old.
   * But it does not stay where something else is asked for now, which `about` tells.
   */
  async load(place, request, show, about = '') {
    const attempt = async () => {
      const mine = {};
      this.#latest.set(place, mine);
      // A slower answer to what was asked earlier must not win.
      const over = () => this.signal.aborted || this.#latest.get(place) !== mine;
      try {
        const loaded = await request(this.signal);
        if (over()) return;
        this.#answers.set(place, about);
        show(loaded);
      } catch (error) {
        if (over() || error.name === 'AbortError') return;
        if (!(error instanceof ApiError)) throw error;
        if (this.#answers.get(place) === about) return;
        this.#answers.delete(place);
        fill(place, failure(error, attempt));
      }
    };
    await attempt();
    return attempt;
  }
}

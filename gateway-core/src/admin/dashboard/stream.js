// Server-sent events over fetch, since EventSource cannot send the token.
//
// It keeps at it: after an end, an error or a silence it connects anew, and says since when it has
// been without.

import { request } from './api.js';

// The overview comes each second. Longer than this without a byte, and whatever is in between,
// such as a tunnel over a sleeping laptop, has lost the connection without a word.
const SILENCE_MS = 6000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8000;

/** Splits a stream of text into events; `push` takes it in any pieces. */
export function parser(emit) {
  let rest = '';
  let name = '';
  let data = [];
  const line = (text) => {
    if (text === '') {
      if (data.length) emit(name || 'message', data.join('\n'));
      name = '';
      data = [];
    } else if (text.startsWith('data:')) data.push(text.slice(text[5] === ' ' ? 6 : 5));
    else if (text.startsWith('event:')) name = text.slice(6).trim();
    // Comments, which keep a connection open, and all other fields mean nothing here.
  };
  return (piece) => {
    const lines = (rest + piece).split(/\r\n|\n/);
    rest = lines.pop();
    lines.forEach(line);
  };
}

export class Stream {
  #tell;
  #running = null;
  #wake = () => {};

  /** `tell(event)` gets `{ kind: 'event', topic, data }`, `{ kind: 'up' }`, `{ kind: 'down', why, retryAt }`. */
  constructor(tell) {
    this.#tell = tell;
  }

  /** Follows these topics from now on, instead of those before. */
  open(topics, agent) {
    this.close();
    const query = new URLSearchParams({ topics: topics.join(',') });
    if (agent) query.set('agent', agent);
    this.#running = new AbortController();
    this.#run(`/events?${query}`, this.#running.signal);
  }

  close() {
    this.#running?.abort();
    this.#running = null;
    this.#wake();
  }

  /** Does not wait for the next attempt. */
  retryNow() {
    this.#wake();
  }

  async #run(path, closed) {
    let pause = FIRST_PAUSE_MS;
    while (!closed.aborted) {
      let why = 'the gateway ended the stream';
      try {
        await this.#follow(path, closed, () => { pause = FIRST_PAUSE_MS; });
      } catch (error) {
        why = error.message;
      }
      if (closed.aborted) return;
      this.#tell({ kind: 'down', why, retryAt: Date.now() + pause });
      await new Promise((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, pause);
      });
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  }

  async #follow(path, closed, heard) {
    const attempt = new AbortController();
    const give_up = () => attempt.abort();
    closed.addEventListener('abort', give_up, { once: true });
    let silence = setTimeout(give_up, SILENCE_MS);
    try {
      const response = await request(path, { signal: attempt.signal, headers: { accept: 'text/event-stream' } });
      if (!response.ok) throw new Error((await response.json().catch(() => null))?.error ?? `the gateway answered ${response.status}`);
      const push = parser((topic, text) => {
        heard();
        this.#tell({ kind: 'event', topic, data: JSON.parse(text) });
      });
      const decoder = new TextDecoder();
      const reader = response.body.getReader();
      this.#tell({ kind: 'up' });
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(silence);
        silence = setTimeout(give_up, SILENCE_MS);
        push(decoder.decode(value, { stream: true }));
      }
    } catch (error) {
      if (error.name === 'AbortError' && !closed.aborted) throw new Error('nothing was heard for too long');
      throw error;
    } finally {
      clearTimeout(silence);
      closed.removeEventListener('abort', give_up);
      attempt.abort();
    }
  }
}

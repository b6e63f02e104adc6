// Something that was asked and is not answered yet.
//
// `progress` and `partial` are words on the way, every other `status` of an EXEC_RESPONSE is the end.

import { RequestError } from '../errors.js';

export class Inquiry {
  #type;
  #onProgress;
  #onPart;
  #report;
  #resolve;
  #reject;

  constructor({ type, onProgress, onPart, report }) {
    this.#type = type;
    this.#onProgress = onProgress;
    this.#onPart = onPart;
    this.#report = report;
    this.outcome = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // It may fail before anybody waits.
    this.outcome.catch(() => {});
  }

  take(message) {
    const { type, payload } = message;
    if (type !== this.#type) this.fail(new RequestError('out_of_turn', `${type} is no answer to that`));
    else if (type !== 'EXEC_RESPONSE') this.#resolve(payload);
    else if (payload.status === 'progress') this.#tell(this.#onProgress, payload.result);
    else if (payload.status === 'partial') this.#tell(this.#onPart, payload.result);
    else if (payload.error !== undefined || payload.status === 'error') this.#failed(payload);
    else this.#resolve(payload.result ?? null);
  }

  fail(error) {
    this.#reject(error);
  }

  #failed({ error, result }) {
    this.fail(new RequestError('failed', error ?? 'the request failed', { result: result ?? null }));
  }

  #tell(handler, word) {
    try {
      handler?.(word ?? null);
    } catch (error) {
      this.#report(error);
    }
  }
}

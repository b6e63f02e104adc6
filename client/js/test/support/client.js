// Clients for tests, and waiting for what they tell.

import { Client, Identity } from '../../src/index.js';
import { within } from './gateway.js';

/** A connected client that ends with its test. */
export async function connected(t, url, options = {}) {
  const client = new Client(url, options.identity ?? (await Identity.generate()), options);
  t.after(() => client.close());
  client.errors = [];
  client.onError((error) => client.errors.push(error));
  await client.connect();
  return client;
}

/** The first thing that `on` tells and that fits. */
export function next(on, fits = () => true, what = 'an event') {
  return within(new Promise((resolve) => on((value) => fits(value) && resolve(value))), what);
}

/** A WebSocket whose texts can be seen, and to which a gateway that is not honest adds some. */
export function tap() {
  const received = [];
  let socket = null;
  class Tapped extends WebSocket {
    constructor(...arguments_) {
      super(...arguments_);
      socket = this;
      this.addEventListener('message', ({ data }) => received.push(data));
    }
  }
  return { WebSocket: Tapped, received, inject: (text) => socket.onmessage({ data: text }) };
}

/** Waits for what announces itself in no other way. */
export async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}

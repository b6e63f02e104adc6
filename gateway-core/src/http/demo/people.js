// Who is here: the gateway's list of agents with the demo's capability, looked at now and then.

import { keyOf } from '/demo/client/index.js';

import { h, setText, short } from './dom.js';

export const CAPABILITY = 'conexus-demo';
const LOOK_EVERY = 2000;
/** Nobody talks to more. */
const SHOWN = 50;

export class People {
  #own;
  #connect;
  #list = document.getElementById('people');
  #nobody = document.getElementById('nobody');
  /** By key: `{did, name, row, button}`. */
  #known = new Map();
  /** With whom there is a conversation. */
  #talking = new Set();

  /** `connect(did)` is called for whoever is chosen; `own` is this tab's key. */
  constructor(own, connect) {
    this.#own = own;
    this.#connect = connect;
  }

  /** What an agent calls itself, or its DID. */
  nameOf(did) {
    return this.#known.get(keyOf(did))?.name ?? short(did);
  }

  /** Whether there is a conversation with it, so that nobody has to be connected to twice. */
  setTalking(did, isTalking) {
    const key = keyOf(did);
    if (isTalking) this.#talking.add(key);
    else this.#talking.delete(key);
    this.#enable(key);
  }

  /** Looks, again and again, as long as the page is there. */
  async follow() {
    for (;;) {
      await this.look().catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
    }
  }

  async look() {
    const answer = await fetch(`/agents?capability=${CAPABILITY}&limit=${SHOWN}`);
    if (!answer.ok) {
      setText(this.#nobody, 'This gateway tells nobody who is here (http.agents): connect by DID.');
      return;
    }
    const { agents } = await answer.json();
    this.#show(new Map(agents.map((agent) => [keyOf(agent.did), agent])));
  }

  #show(agents) {
    agents.delete(this.#own);
    for (const [key, { row }] of this.#known) {
      if (agents.has(key)) continue;
      row.remove();
      this.#known.delete(key);
    }
    for (const [key, { did, metadata }] of agents) {
      if (!this.#known.has(key)) this.#add(key, did, String(metadata?.name ?? short(did)));
    }
    this.#nobody.hidden = this.#known.size > 0;
  }

  #add(key, did, name) {
    const button = h('button', { type: 'button', onclick: () => this.#connect(did) }, 'Connect');
    button.setAttribute('aria-label', `Connect to ${name}`);
    const row = h('li', {}, h('span.who', {}, h('strong', {}, name), h('code', { title: did }, short(did))), button);
    this.#known.set(key, { did, name, row, button });
    this.#list.append(row);
    this.#enable(key);
  }

  #enable(key) {
    const known = this.#known.get(key);
    if (!known) return;
    const isTalking = this.#talking.has(key);
    known.button.disabled = isTalking;
    setText(known.button, isTalking ? 'Connected' : 'Connect');
  }
}

// Watching other agents: what the user wants, over all connections, and what this one was asked for.
//
// A Watch is one user's wish to be told of some agents. Several that want the same agent share what is asked
// of the gateway; whenever either side changes the difference is sent, so that a lost connection, or two
// wishes that cross, need no care of their own.

import { SendError } from '../errors.js';
import { keyOf } from '../protocol/did.js';

/** So many agents are on one list. */
const LIST = 100;
/** So many bytes each of them and the rest of the message take at most. */
const DID_BYTES = 80;
const ENVELOPE_BYTES = 600;
/** So many lists are remembered for the refusals that may come of them. */
const REMEMBERED = 64;
/** What is refused for the moment is asked for again after these milliseconds, and so often. */
const FIRST_DELAY = 1_000;
const LONGEST_DELAY = 30_000;
const AGAIN = 6;
const PASSING = new Set(['rate_limited', 'policy_error', 'draining']);

/** A wish; `close` ends it. */
export class Watch {
  #close;

  constructor(dids, close) {
    this.dids = Object.freeze(dids);
    this.#close = close;
  }

  close() {
    this.#close();
  }
}

export class Watches {
  /** By key: `{did, latest, watchers}`; a watcher is `{did, tell}`. */
  #targets = new Map();
  #link = null;

  /** Calls `tell` with each word of these agents: `{did, state, reason, since}`, or `{did, error}` where it is refused. */
  watch(dids, tell) {
    const watchers = new Map();
    for (const did of dids) {
      const key = recipientKey(did);
      if (!watchers.has(key)) watchers.set(key, { did, tell });
    }
    for (const [key, watcher] of watchers) {
      const target = this.#targets.get(key) ?? { did: watcher.did, latest: null, watchers: new Set() };
      this.#targets.set(key, target);
      target.watchers.add(watcher);
      if (target.latest) tell({ ...target.latest, did: watcher.did });
    }
    this.#link?.sync();
    return new Watch([...watchers.values()].map(({ did }) => did), () => this.#end(watchers));
  }

  /** From now on this link is told. */
  attach(link) {
    this.#link = new LinkWatches(this.#targets, link, (key, error) => this.#refuse(key, error));
    this.#link.sync();
  }

  /** The connection is over: what it told is not known any more. */
  detach() {
    this.#link?.end();
    this.#link = null;
    for (const target of this.#targets.values()) target.latest = null;
  }

  /** The gateway tells of an agent; whether somebody wants to know. */
  told({ did, state, reason = null, since }) {
    const key = recipientKey(did);
    const target = this.#targets.get(key);
    if (!target) return false;
    this.#link?.answered(key);
    target.latest = { did, state, reason, since };
    for (const watcher of [...target.watchers]) watcher.tell({ ...target.latest, did: watcher.did });
    return true;
  }

  /** The gateway refuses something; whether it was one of our lists. */
  refused(refusal) {
    return this.#link?.refused(refusal) ?? false;
  }

  #refuse(key, error) {
    const target = this.#targets.get(key);
    if (!target) return;
    this.#targets.delete(key);
    for (const { did, tell } of target.watchers) tell({ did, error });
  }

  #end(watchers) {
    for (const [key, watcher] of watchers) {
      const target = this.#targets.get(key);
      if (target?.watchers.delete(watcher) && target.watchers.size === 0) this.#targets.delete(key);
    }
    watchers.clear();
    this.#link?.sync();
  }
}

/** What one connection was asked for. */
class LinkWatches {
  #targets;
  #link;
  #refuse;
  /** The wish (a target) that the gateway was asked for, by key. */
  #asked = new Map();
  /** Lists by the id of their WATCH. */
  #lists = new Map();
  /** By key: how often it was refused for the moment, and the timer of the next attempt. */
  #postponed = new Map();

  constructor(targets, link, refuse) {
    this.#targets = targets;
    this.#link = link;
    this.#refuse = refuse;
  }

  sync() {
    const { session } = this.#link;
    const isWanted = (key) => this.#targets.get(key);
    const fresh = [...this.#targets].filter(
      ([key, target]) => this.#asked.get(key) !== target && !this.#postponed.get(key)?.timer,
    );
    const gone = [...this.#asked.keys()].filter((key) => !isWanted(key));
    if (session.protocol === 'ioap.v1') {
      const error = new SendError('unsupported', 'the session speaks ioap.v1, which has no presence');
      for (const [key] of fresh) this.#refuse(key, error);
      return;
    }
    const size = Math.min(Math.max(Math.floor((session.maxMessageBytes - ENVELOPE_BYTES) / DID_BYTES), 1), LIST);
    for (const list of chunks(gone, size)) {
      const dids = list.map((key) => this.#asked.get(key).did);
      for (const key of list) this.#asked.delete(key);
      this.#send('UNWATCH', dids, []);
    }
    for (const list of chunks(fresh, size)) {
      for (const [key, target] of list) this.#asked.set(key, target);
      this.#send('WATCH', list.map(([, target]) => target.did), list);
    }
  }

  answered(key) {
    clearTimeout(this.#postponed.get(key)?.timer);
    this.#postponed.delete(key);
  }

  refused(refusal) {
    const list = this.#lists.get(refusal.correlationId);
    if (!list) return false;
    const place = /^payload\.dids\[(\d+)\]$/.exec(refusal.details?.member ?? '');
    const one = place && list[Number(place[1])];
    for (const asked of one ? [one] : list) this.#refusedOne(asked, refusal);
    if (one && refusal.kind === 'MALFORMED_MESSAGE') {
      // It is why nothing of the list was taken: the others are asked for without it.
      for (const [key, target] of list) if (this.#asked.get(key) === target) this.#asked.delete(key);
      this.sync();
    }
    return true;
  }

  end() {
    for (const { timer } of this.#postponed.values()) clearTimeout(timer);
    this.#postponed.clear();
  }

  #refusedOne([key, target], refusal) {
    if (this.#asked.get(key) !== target) return;
    this.#asked.delete(key);
    const times = this.#postponed.get(key)?.times ?? 0;
    if (PASSING.has(refusal.reason) && times < AGAIN) {
      const delay = Math.min(FIRST_DELAY * 2 ** times, LONGEST_DELAY) * (0.5 + Math.random() / 2);
      const timer = setTimeout(() => {
        this.#postponed.set(key, { times: times + 1, timer: null });
        this.sync();
      }, delay);
      this.#postponed.set(key, { times: times + 1, timer });
      return;
    }
    this.answered(key);
    this.#refuse(key, refusal);
  }

  #send(type, dids, list) {
    const id = globalThis.crypto.randomUUID();
    if (this.#lists.size >= REMEMBERED) this.#lists.delete(this.#lists.keys().next().value);
    this.#lists.set(id, list);
    // A connection that is lost meanwhile is attached anew.
    this.#link.say({ to: this.#link.session.gatewayDid, type, payload: { dids }, id }).catch(() => {});
  }
}

function chunks(list, size) {
  return Array.from({ length: Math.ceil(list.length / size) }, (_, at) => list.slice(at * size, (at + 1) * size));
}

/** The key of somebody to send to or to watch. */
export function recipientKey(did) {
  try {
    return keyOf(did);
  } catch (error) {
    throw new SendError('recipient', "the recipient is no agent's did", { cause: error });
  }
}

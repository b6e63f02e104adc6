// All peers of one client: which there are, whose OFFERs are taken, and the way from a message to its peer.
//
// There is one connection for each pair of agents. Without `onPeer`, and without a peer of that agent, all
// signaling is left to the client's own handlers.

import { ConexusError, PeerError, RequestError, Unverified } from '../errors.js';
import { compareBytes } from '../protocol/bytes.js';
import { keyOf, parseDid } from '../protocol/did.js';
import { Message, signMessage } from '../protocol/envelope.js';
import { Serial } from '../serial.js';
import { recipientKey } from '../signaling/watching.js';
import { Calls } from './calls.js';
import { Freshness } from './freshness.js';
import { refuse } from './negotiation.js';
import { Peer } from './peer.js';
import { MAX_MESSAGE_BYTES } from './channel.js';

const SIGNALING = new Set(['OFFER', 'ANSWER', 'ICE_CANDIDATE']);
/** OFFERs of strangers that wait for `accept` to say yes or no. */
const MAX_UNDECIDED = 64;
const MAX_UNVERIFIED = 1024;
const MAX_CANDIDATES = 1024;

const DEFAULTS = Object.freeze({
  timeout: 30_000,
  answerTimeout: 10_000,
  openTimeout: 15_000,
  closeTimeout: 2_000,
  attempts: 3,
  restarts: 5,
  fallback: false,
  maxMessageBytes: MAX_MESSAGE_BYTES,
  rtcConfiguration: {},
});

export class Peers {
  #port;
  #identity;
  #verifyIncoming;
  #max;
  #peers = new Map();
  #fresh;
  #undecided = 0;
  #verifying = new Serial(MAX_UNVERIFIED);
  /** Our candidates' messages, the latest. */
  #candidates = new Set();
  #onPeer = null;
  #peerPort;

  /** `port`: `identity`, `say`, `iceServers`, `now`, `relays`, `report`, `RTCPeerConnection`, `verifyIncoming`, `maxPeers`. */
  constructor(port) {
    this.#port = port;
    this.#identity = port.identity;
    this.#verifyIncoming = port.verifyIncoming;
    this.#max = port.maxPeers;
    this.#fresh = new Freshness(port.now);
    this.calls = new Calls({
      sayDirect: (peer, draft) => this.#sayDirect(peer, draft),
      sayByGateway: (draft) => port.say({ timestamp: port.now(), ...draft }),
      relays: port.relays,
      isFresh: (key, message) => this.#fresh.judge(key, message) === 'fresh',
      report: port.report,
    });
    this.#peerPort = {
      ...port,
      calls: this.calls,
      heard: (peer, text) => this.#heard(peer, text),
      ended: (peer, error) => this.#ended(peer, error),
      noteCandidate: (id) => this.#noteCandidate(id),
    };
  }

  /** Whoever connects is handed to `handler` once it is connected; `accept` says who may (everybody, unless given). */
  onPeer(handler, { accept = () => true, ...options } = {}) {
    const entry = { handler, accept, options };
    this.#onPeer = entry;
    return () => {
      if (this.#onPeer === entry) this.#onPeer = null;
    };
  }

  /** Connects to an agent; one that is connected already is the same Peer. */
  async connect(did, options = {}) {
    const key = recipientKey(did);
    if (key === this.#identity.key) throw new PeerError('recipient', 'nobody connects to oneself');
    const known = this.#peers.get(key);
    if (known) return known.ready;
    if (this.#peers.size >= this.#max) throw new PeerError('too_many', `there are ${this.#max} peers already`);
    return this.#make(did, key, options).connect();
  }

  /** The peers that there are. */
  get all() {
    return [...this.#peers.values()];
  }

  /** Asks an agent by the direct way, if there is one, else by the gateway where it carries that. */
  askable(did) {
    const key = recipientKey(did);
    const known = this.#peers.get(key);
    if (known?.path === 'direct') return known;
    return { did, key, path: 'gateway', state: 'connected' };
  }

  /** Takes what the gateway delivered, if it is for a peer; whether it was. */
  claim({ message, isGateway, key }) {
    if (message.type === 'ERROR') return this.#claimError(message, isGateway, key);
    if (isGateway) return false;
    if (SIGNALING.has(message.type)) return this.#claimSignaling(message, key);
    return this.calls.take(message, key, null);
  }

  /** Ends all peers. */
  async close() {
    await Promise.all(this.all.map((peer) => peer.close()));
    this.calls.endAll(new RequestError('closed', 'the client was closed'));
  }

  #claimError(message, isGateway, key) {
    const concerned = this.all.find((peer) => (isGateway || peer.key === key) && peer.concerns(message.correlationId));
    if (concerned) {
      concerned.takeError(message).catch(this.#port.report);
      return true;
    }
    // That a candidate did not arrive says nothing that its description's fate does not.
    if (isGateway) return this.#candidates.has(message.correlationId) || this.calls.takeRefusal(message);
    return this.calls.take(message, key, null);
  }

  #claimSignaling(message, key) {
    if (!this.#peers.has(key) && this.#onPeer === null) return false;
    // Verified on arrival, unless the client was told not to: here it always is.
    const verified = this.#verifyIncoming ? null : this.#verifying.run(() => message.verify());
    const proceed = () => this.#proceed(message, key).catch(this.#port.report);
    if (verified === null) proceed();
    else verified.then(proceed, this.#port.report);
    return true;
  }

  async #proceed(message, key) {
    this.#assertForUs(message);
    const peer = this.#peers.get(key);
    // A candidate or an ANSWER that comes after the end.
    if (message.type !== 'OFFER') return peer?.take(message);
    const verdict = this.#fresh.judge(key, message);
    if (verdict !== 'fresh') {
      if (verdict === 'stale' || verdict === 'full') await refuse(this.#port, message, verdict);
      throw new PeerError('refused_offer', `an OFFER of ${message.from} is refused: it is ${verdict}`);
    }
    if (message.correlationId === null) return this.#firstOffer(peer, message, key);
    return peer ? peer.take(message) : refuse(this.#port, message, 'unknown_connection');
  }

  /** A message to somebody else that is passed on to us is nobody's word to us. */
  #assertForUs(message) {
    let key = null;
    try {
      key = keyOf(message.to);
    } catch {
      // Not even a DID.
    }
    if (key !== this.#identity.key) throw new Unverified('not_for_us', 'it is addressed to somebody else', { from: message.from });
  }

  async #firstOffer(peer, message, key) {
    // Ours is under way, or there is no direct way yet: the same peer takes theirs.
    if (peer && !(peer.path === 'direct')) return peer.take(message);
    if (peer && !peer.isNewer(message)) throw new PeerError('refused_offer', 'an OFFER that is older than the connection is refused');
    const taker = this.#onPeer;
    if (!taker || !this.#port.RTCPeerConnection) return refuse(this.#port, message, 'declined');
    const isBusy = this.#peers.size - (peer ? 1 : 0) >= this.#max || this.#undecided >= MAX_UNDECIDED;
    if (isBusy) return refuse(this.#port, message, 'busy');
    peer?.finish(null);
    // Made before anybody is asked, so that candidates find their peer.
    return this.#receive(this.#make(message.from, key, taker.options), message, taker);
  }

  async #receive(peer, message, { accept, handler }) {
    const welcome = this.#isWelcome(message, accept);
    try {
      await peer.accept(message, welcome);
    } catch (error) {
      if (error.kind !== 'declined') throw error;
      await refuse(this.#port, message, 'declined');
      return;
    }
    handler(peer);
  }

  async #isWelcome({ from }, accept) {
    this.#undecided += 1;
    try {
      return (await within(accept(from), DEFAULTS.answerTimeout)) === true;
    } catch (error) {
      this.#port.report(error);
      return false;
    } finally {
      this.#undecided -= 1;
    }
  }

  #make(did, key, options) {
    const isPolite = compareBytes(this.#identity.publicKey, parseDid(did)) < 0;
    const port = { ...this.#peerPort, RTCPeerConnection: options.RTCPeerConnection ?? this.#port.RTCPeerConnection };
    const peer = new Peer(port, { did, key, isPolite }, { ...DEFAULTS, ...defined(options) });
    this.#peers.set(key, peer);
    return peer;
  }

  #ended(peer, error) {
    if (this.#peers.get(peer.key) === peer) this.#peers.delete(peer.key);
    this.calls.drop(peer, error);
  }

  #sayDirect(peer, draft) {
    return peer.say(signMessage(this.#identity, { ...draft, timestamp: this.#port.now() }));
  }

  #noteCandidate(id) {
    if (this.#candidates.size >= MAX_CANDIDATES) this.#candidates.delete(this.#candidates.values().next().value);
    this.#candidates.add(id);
  }

  /** A text over a control channel: whose channel it is says who must have signed it. */
  async #heard(peer, text) {
    try {
      const message = Message.parse(String(text));
      if (keyOf(message.from) !== peer.key) throw new Unverified('not_the_peer', 'it is signed by somebody else');
      await message.verify();
      this.#assertForUs(message);
      const isTaken = !SIGNALING.has(message.type) && this.calls.take(message, peer.key, peer);
      if (!isTaken) throw new PeerError('out_of_place', `${message.type} has no place on a channel`);
    } catch (error) {
      if (!(error instanceof ConexusError)) throw error;
      this.#port.report(error);
    }
  }
}

function within(promise, millis) {
  let timer;
  const over = new Promise((resolve) => {
    timer = setTimeout(() => resolve(false), millis);
  });
  return Promise.race([promise, over]).finally(() => clearTimeout(timer));
}

function defined(options) {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

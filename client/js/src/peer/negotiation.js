// How two agents come to one connection: OFFER, ANSWER, candidates, and who gives way.
//
// docs/webrtc.md ("What peers agree on") is the convention; this is it. A connection is named by its first
// OFFER's id. Where both offer at once the agent with the smaller key gives way. All steps of one peer are
// taken one after the other. `peer` starts them and is told how they end.

import { PeerError, Refused } from '../errors.js';
import { Serial } from '../serial.js';
import { Transport } from './transport.js';

/** Messages of one agent that wait for each other. */
const MAX_WAITING = 512;
/** Candidates that wait until their description is sent. */
const MAX_UNSENT = 256;

export class Negotiation {
  #port;
  #sinks;
  #isPolite;
  #did;
  #steps = new Serial(MAX_WAITING);
  /** The id of the connection: that of its first OFFER. */
  #connection = null;
  /** When its first OFFER was written, and that of the latest that was answered: an older one is not for it. */
  #written = 0;
  #begun = -Infinity;
  /** Our OFFER that waits for its ANSWER. */
  #offer = null;
  /** Their first OFFER, which came while ours was under way and is not to be answered, unless ours fails. */
  #aside = null;
  /** The id of our ANSWER. */
  #answered = null;
  /** Candidates that wait for their description to be sent; null when they need not. */
  #unsent = null;
  #isOver = false;

  /**
   * `port`: `say`, `iceServers`, `now`, `noteCandidate`, `RTCPeerConnection`, `configuration`. `sinks`: `transport(transport)`,
   * `changed()`, `channel(native, limit)`, `answered()`, `refused(error)`.
   */
  constructor({ port, did, isPolite, sinks }) {
    this.#port = port;
    this.#did = did;
    this.#isPolite = isPolite;
    this.#sinks = sinks;
    this.transport = null;
    /** Whether the connection is by our OFFER. */
    this.isInitiator = false;
  }

  /** Whether a first OFFER of ours waits for its ANSWER. */
  get isOffering() {
    return this.#offer !== null && this.#offer === this.#connection;
  }

  /** Whether a message with that correlation id is about this connection. */
  concerns(correlationId) {
    return correlationId !== null && [this.#connection, this.#offer, this.#answered].includes(correlationId);
  }

  /** Begins a connection with an OFFER. */
  offer() {
    return this.#steps.run(async () => {
      this.#assertOpen();
      const id = globalThis.crypto.randomUUID();
      await this.#begin(id, this.#port.now(), true);
      const sdp = await this.transport.offer();
      this.#offer = id;
      await this.#describe({ type: 'OFFER', id, payload: { sdp } });
    });
  }

  /** Seeks the way anew, within the same connection. */
  restart() {
    return this.#steps.run(async () => {
      this.#assertOpen();
      const id = globalThis.crypto.randomUUID();
      if (this.transport.isOffering) this.#offer = null;
      this.#unsent = [];
      const sdp = await this.transport.offer({ restart: true });
      this.#offer = id;
      await this.#describe({ type: 'OFFER', id, correlationId: this.#connection, payload: { sdp } });
    });
  }

  /**
   * Takes an OFFER, ANSWER or ICE_CANDIDATE of the agent's, whose signature has been verified; with `welcome`,
   * a promise, once that says true. What comes meanwhile waits.
   */
  take(message, welcome = null) {
    return this.#steps.run(async () => {
      if (welcome !== null && (await welcome) !== true) throw new PeerError('declined', 'the agent is not welcome');
      if (this.#isOver) return;
      if (message.type === 'OFFER') await this.#takeOffer(message);
      else if (message.type === 'ANSWER') await this.#takeAnswer(message);
      else await this.#takeCandidate(message);
    });
  }

  /** Takes an ERROR about this connection, the gateway's or the agent's. */
  takeError(message) {
    return this.#steps.run(async () => {
      if (this.#isOver || !this.concerns(message.correlationId)) return;
      const wasFirst = this.isOffering;
      this.#offer = null;
      const aside = this.#aside;
      this.#aside = null;
      // Ours did not get there: then theirs is the one.
      if (wasFirst && aside !== null) await this.#accept(aside);
      else this.#sinks.refused(new Refused(message));
    });
  }

  /** Whether this first OFFER was written after that of the connection that stands, if one does. */
  isNewer(message) {
    return message.time >= this.#begun;
  }

  /** Tells the other side that nothing will come of it. */
  withdraw() {
    if (this.#connection === null) return;
    const payload = {
      code: 'CONNECTION_REFUSED',
      message: 'the connection was given up',
      details: { reason: 'withdrawn' },
    };
    this.#say({ type: 'ERROR', correlationId: this.#connection, payload }).catch(() => {});
  }

  close() {
    this.#isOver = true;
    this.transport?.close();
  }

  #assertOpen() {
    if (this.#isOver) throw new PeerError('closed', 'the connection to the peer was closed');
  }

  async #takeOffer(message) {
    if (message.correlationId !== null) {
      await this.#takeRestart(message);
    } else if (this.isOffering && !this.#isPolite) {
      this.#aside = message;
    } else if (this.isNewer(message)) {
      await this.#accept(message);
    }
  }

  /** Theirs is the connection: ours, if one was under way, is given up. */
  async #accept(message) {
    await this.#begin(message.id, message.time, false);
    await this.#answer(message);
    this.#begun = message.time;
  }

  async #takeRestart(message) {
    if (message.correlationId !== this.#connection || this.isOffering) {
      await refuse(this.#port, message, 'unknown_connection');
      return;
    }
    if (this.#offer !== null && !this.#isPolite) return;
    this.#offer = null;
    this.#unsent = [];
    await this.#answer(message);
  }

  async #answer(message) {
    const sdp = await this.transport.answer(message.payload.sdp);
    this.#answered = globalThis.crypto.randomUUID();
    await this.#describe({ type: 'ANSWER', id: this.#answered, correlationId: message.id, payload: { sdp } });
    this.#sinks.answered();
  }

  async #takeAnswer(message) {
    if (this.#offer === null || message.correlationId !== this.#offer) return;
    this.#offer = null;
    this.#aside = null;
    await this.transport.answered(message.payload.sdp);
    this.#begun = this.#written;
    this.#sinks.answered();
  }

  async #takeCandidate({ correlationId, payload }) {
    // Foreign agents may name no connection: then it is for the one that there is.
    if (correlationId !== null && correlationId !== this.#connection) return;
    await this.transport?.addCandidate(payload);
  }

  async #begin(id, time, isInitiator) {
    const iceServers = await this.#port.iceServers();
    this.#assertOpen();
    this.transport?.close();
    this.#connection = id;
    this.#written = time;
    this.#offer = null;
    this.#aside = null;
    this.#unsent = [];
    this.isInitiator = isInitiator;
    const transport = new Transport(
      this.#port.RTCPeerConnection,
      { iceServers, ...this.#port.configuration },
      {
        candidate: (candidate) => transport === this.transport && this.#gathered(candidate),
        changed: () => transport === this.transport && this.#sinks.changed(),
        channel: (native, limit) => transport === this.transport && this.#sinks.channel(native, limit),
      },
    );
    this.transport = transport;
    this.#sinks.transport(transport);
  }

  #gathered(candidate) {
    if (this.#unsent === null) this.#sayCandidate(candidate);
    else if (this.#unsent.length < MAX_UNSENT) this.#unsent.push(candidate);
  }

  /** Sends a description, then the candidates that came meanwhile. */
  async #describe(draft) {
    await this.#say(draft);
    const unsent = this.#unsent ?? [];
    this.#unsent = null;
    for (const candidate of unsent) this.#sayCandidate(candidate);
  }

  #sayCandidate(payload) {
    // One that is lost is one way less; whether that matters the time-outs tell.
    const id = globalThis.crypto.randomUUID();
    this.#port.noteCandidate(id);
    this.#say({ type: 'ICE_CANDIDATE', id, correlationId: this.#connection, payload }).catch(() => {});
  }

  #say(draft) {
    return this.#port.say({ to: this.#did, timestamp: this.#port.now(), ...draft });
  }
}

/** Tells whoever sent an OFFER that there will be no ANSWER; `reason` as docs/webrtc.md has them. */
export async function refuse(port, offer, reason) {
  const payload = { code: 'CONNECTION_REFUSED', message: 'the offer is not accepted', details: { reason } };
  try {
    await port.say({ to: offer.from, type: 'ERROR', correlationId: offer.id, timestamp: port.now(), payload });
  } catch {
    // Then the other side's patience has to do.
  }
}

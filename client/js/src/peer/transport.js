// One RTCPeerConnection: descriptions, candidates both ways, the control channel.
//
// Knows nothing of messages and signatures: `peer` hands it the other side's descriptions and candidates, and
// is told what to send. It ends with its connection; a peer that begins anew gets another one.

import { RESERVED } from './channel.js';
import { MAX_PIECE } from './framing.js';

/** Candidates that may come for one connection, early ones included. */
const MAX_CANDIDATES = 256;
/** Channels that the other side may have open. */
const MAX_CHANNELS = 256;
/** Who is on it: docs/webrtc.md. */
const CONTROL = Object.freeze({ negotiated: true, id: 0, ordered: true, protocol: 'ioap.v1.1' });

export class Transport {
  #pc;
  #sinks;
  #early = [];
  #candidates = 0;
  #channels = 0;
  #isClosed = false;

  /** `sinks`: `candidate(init)`, `changed()`, `channel(native)`. */
  constructor(RTCPeerConnection, configuration, sinks) {
    this.#sinks = sinks;
    this.#pc = new RTCPeerConnection(configuration);
    this.#pc.onicecandidate = ({ candidate }) => this.#gathered(candidate);
    this.#pc.onconnectionstatechange = () => this.#isClosed || sinks.changed();
    this.#pc.ondatachannel = ({ channel }) => this.#offered(channel);
    this.control = this.#pc.createDataChannel(RESERVED, CONTROL);
  }

  /** `new`, `connecting`, `connected`, `disconnected`, `failed` or `closed`. */
  get state() {
    return this.#isClosed ? 'closed' : this.#pc.connectionState;
  }

  /** Whether an OFFER of ours waits for its answer. */
  get isOffering() {
    return this.#pc.signalingState === 'have-local-offer';
  }

  /** Our description for an OFFER; with `restart` the way is sought anew. */
  async offer({ restart = false } = {}) {
    await this.#pc.setLocalDescription(await this.#pc.createOffer({ iceRestart: restart }));
    return this.#pc.localDescription.sdp;
  }

  /** Takes the other side's OFFER and returns our answer; an OFFER of our own is taken back. */
  async answer(sdp) {
    if (this.isOffering) await this.#pc.setLocalDescription({ type: 'rollback' });
    await this.#describe('offer', sdp);
    await this.#pc.setLocalDescription(await this.#pc.createAnswer());
    return this.#pc.localDescription.sdp;
  }

  /** Takes the answer to our OFFER. */
  async answered(sdp) {
    await this.#describe('answer', sdp);
  }

  /** A candidate of the other side's; one that comes before its description waits for it. */
  async addCandidate({ candidate, sdp_mid: sdpMid = null, sdp_mline_index: sdpMLineIndex = null }) {
    if (this.#candidates >= MAX_CANDIDATES) return;
    this.#candidates += 1;
    const index = sdpMLineIndex === null ? null : Number(sdpMLineIndex);
    // RFC 8838: without either it is for the first section.
    const init = { candidate, sdpMid, sdpMLineIndex: sdpMid === null ? (index ?? 0) : index };
    if (this.#pc.remoteDescription === null) this.#early.push(init);
    else await this.#add(init);
  }

  /** Gives a channel its RTCDataChannel. */
  carry(channel) {
    const native = this.#pc.createDataChannel(channel.label, channel.nativeOptions);
    channel.attach(native, () => this.maxPiece);
  }

  /** What one SCTP message may have. */
  get maxPiece() {
    const told = this.#pc.sctp?.maxMessageSize;
    return told > 0 ? Math.min(told, MAX_PIECE) : MAX_PIECE;
  }

  stats() {
    return this.#pc.getStats();
  }

  close() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#pc.onicecandidate = null;
    this.#pc.ondatachannel = null;
    this.#pc.close();
  }

  async #describe(type, sdp) {
    await this.#pc.setRemoteDescription({ type, sdp });
    // A new generation may bring as many.
    this.#candidates = this.#early.length;
    for (const init of this.#early.splice(0)) await this.#add(init);
  }

  async #add(init) {
    try {
      await this.#pc.addIceCandidate(init);
    } catch {
      // Of an earlier generation, or of a kind that this engine does not know: the others will do.
    }
  }

  #gathered(candidate) {
    if (this.#isClosed) return;
    // Some engines mark the end by an empty candidate and null, some by null alone.
    if (candidate !== null && candidate.candidate === '') return;
    this.#sinks.candidate({
      candidate: candidate?.candidate ?? '',
      sdp_mid: candidate?.sdpMid ?? '0',
      sdp_mline_index: candidate?.sdpMLineIndex ?? 0,
    });
  }

  #offered(native) {
    if (this.#channels >= MAX_CHANNELS) {
      native.close();
      return;
    }
    this.#channels += 1;
    native.addEventListener('close', () => {
      this.#channels -= 1;
    });
    this.#sinks.channel(native, () => this.maxPiece);
  }
}


// One registered connection: its socket, and what is unanswered on it.
//
// The link ends with its connection; whoever waits on it is told, and the next one starts with nothing of the
// old one's. Texts are judged one after the other, in the order in which they came.

import { ConexusError, ConnectionLost, Refused, SendError } from '../errors.js';
import { utf8Length } from '../protocol/bytes.js';
import { signMessage } from '../protocol/envelope.js';
import { Pace } from './pace.js';
import { Pending } from './pending.js';

/** Texts that wait to be judged; a gateway that sends faster than we verify is cut off. */
const MAX_UNJUDGED = 1024;
const MAX_UNJUDGED_BYTES = 16 * 1024 * 1024;

/** Answers that come too late for whoever waited, or that nobody waits for. */
const STALE = new Set(['PONG', 'REGISTERED', 'CHALLENGE']);

export class Link {
  #config;
  #socket;
  #trust;
  #sinks;
  #pace;
  #pending = new Pending();
  #unjudged = [];
  #unjudgedBytes = 0;
  #judging = false;
  #timer = null;
  #end;
  #saying = Promise.resolve();

  /** `sinks` has who gets what: `dispatcher`, `watches`, `claim` (for the peers). */
  constructor(config, { socket, session, trust, early }, sinks) {
    this.#config = config;
    this.#socket = socket;
    this.#trust = trust;
    this.#sinks = sinks;
    this.#pace = new Pace(session.heartbeat);
    this.session = session;
    /** Resolves with a ConnectionLost when the connection is over. */
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    for (const text of early) this.#receive(text);
    socket.listen(
      (text) => this.#receive(text),
      (close) => this.#closed(close),
    );
    this.#watchPace();
  }

  /** Signs a message and hands it to the socket, in the order of the calls; returns its id. */
  say(draft) {
    const signed = signMessage(this.#config.identity, draft);
    // Told to the caller when its turn has come.
    signed.catch(() => {});
    const said = this.#saying.then(async () => {
      const { id, text } = await signed;
      this.#checkSize(text);
      await this.#socket.send(text, { timeout: this.#config.requestTimeout });
      this.#pace.onSaid();
      return id;
    });
    this.#saying = said.catch(() => {});
    return said;
  }

  /** The same, and waits for the answer of `peer` (a key) or the gateway. */
  async ask(draft, peer, patience) {
    const id = draft.id ?? globalThis.crypto.randomUUID();
    const answer = this.#pending.expect(id, peer, patience);
    // Whoever cannot send is told by that, not by the silence that follows.
    this.say({ ...draft, id }).catch((error) => this.#pending.abandon(id, error));
    return answer;
  }

  /** UNREGISTER and a close frame, then what still comes until the gateway is done. */
  async farewell(patience) {
    clearTimeout(this.#timer);
    const over = new Promise((resolve) => {
      this.#timer = setTimeout(resolve, patience);
    });
    try {
      await this.say({ to: this.session.gatewayDid, type: 'UNREGISTER', payload: {} });
    } catch {
      // The socket is gone already: there is nobody to say goodbye to.
    }
    this.#socket.close(1000);
    await Promise.race([this.ended, over]);
    this.#lose(new ConnectionLost('closed', 'the client was closed'));
  }

  #checkSize(text) {
    const bytes = utf8Length(text);
    const limit = this.session.maxMessageBytes;
    if (bytes <= limit) return;
    throw new SendError('too_large', `the message takes ${bytes} bytes of at most ${limit}`, { bytes, limit });
  }

  #receive(text) {
    this.#pace.onHeard();
    if (text === null) {
      this.#sinks.dispatcher.push('error', new ConexusError('binary_frame', 'a binary frame arrived'));
      return;
    }
    this.#unjudgedBytes += text.length;
    this.#unjudged.push(text);
    const tooMany = this.#unjudged.length > MAX_UNJUDGED || this.#unjudgedBytes > MAX_UNJUDGED_BYTES;
    if (tooMany) this.#tooSlow();
    else if (!this.#judging) this.#judgeAll();
  }

  async #judgeAll() {
    this.#judging = true;
    while (this.#unjudged.length > 0) {
      const text = this.#unjudged.shift();
      this.#unjudgedBytes -= text.length;
      try {
        this.#deliver(await this.#trust.judge(text));
      } catch (error) {
        this.#sinks.dispatcher.push('error', error);
      }
      if (this.#sinks.dispatcher.isFull) this.#tooSlow();
    }
    this.#judging = false;
  }

  #deliver(judged) {
    const { dispatcher, watches, claim } = this.#sinks;
    const { message, isGateway } = judged;
    if (this.#pending.claim(judged) || claim(judged)) return;
    if (message.type === 'ERROR') {
      const refusal = new Refused(message);
      if (!(isGateway && watches.refused(refusal))) dispatcher.push('error', refusal);
    } else if (message.type === 'PRESENCE') {
      watches.told(message.payload);
    } else if (!STALE.has(message.type)) {
      dispatcher.push('message', message);
    }
  }

  #tooSlow() {
    this.#unjudged.length = 0;
    this.#unjudgedBytes = 0;
    this.#lose(new ConnectionLost('slow_handlers', 'messages came faster than the handlers took them'));
    this.#socket.close(4000, 'too slow');
  }

  #watchPace() {
    this.#timer = setTimeout(() => {
      const { silence } = this.#pace;
      if (silence !== null) {
        this.#lose(new ConnectionLost('silent', `nothing heard from the gateway for ${silence} ms`));
        this.#socket.close(4000, 'silent');
        return;
      }
      if (this.#pace.isPingDue) {
        this.#pace.onPinged();
        this.say({ to: this.session.gatewayDid, type: 'PING', payload: {} }).catch(() => {});
      }
      this.#watchPace();
    }, this.#pace.nextCheck);
  }

  #closed(close) {
    const lost =
      close.code === 1006
        ? new ConnectionLost('ended', 'the connection ended without a close frame', { close })
        : new ConnectionLost('closed', `the gateway closed with ${close.code} ${close.reason}`, { close });
    this.#lose(lost);
  }

  /** Once; what comes after the end is nobody's. */
  #lose(lost) {
    clearTimeout(this.#timer);
    this.#end(lost);
    this.#pending.endAll();
  }
}


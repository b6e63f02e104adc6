// From a URL to a registered connection: dial, CHALLENGE, REGISTER, REGISTERED.
//
// On ioap.v1.1 both sides prove who they are before anything else is said; on ioap.v1 REGISTER is written and
// nothing answers. All of it is within one patience, which the caller's signal ends.

import { ConnectError, ConexusError, Refused, Unverified } from '../errors.js';
import { Message, signMessage } from '../protocol/envelope.js';
import { RULES } from '../protocol/schema.js';
import { Session } from './session.js';
import { Socket } from './socket.js';
import { Trust } from './trust.js';

/** How long the close frame may take that follows a refusal; its code tells whether to come back. */
const CLOSE_AFTER_REFUSAL = 1_000;
/** Messages that overtake REGISTERED are kept; so many of them. */
const MAX_EARLY = 64;

const PROTOCOLS = { 'ioap.v1': ['ioap.v1.1', 'ioap.v1'], 'ioap.v1.1': ['ioap.v1.1'] };

/** `{socket, session, trust, early}`; throws a ConnectError. */
export async function establish(config, metadata, signal) {
  const { WebSocket, endpoint, minProtocol } = config;
  const socket = await Socket.open(WebSocket, endpoint.audience, PROTOCOLS[minProtocol], signal);
  const inbox = new Inbox(socket, signal);
  try {
    if (socket.protocol === 'ioap.v1.1') return await registerChallenged(config, metadata, socket, inbox);
    if (minProtocol === 'ioap.v1.1') {
      throw new ConnectError('protocol_too_old', 'the gateway speaks ioap.v1 and ioap.v1.1 is required');
    }
    return await registerV1(config, socket, inbox);
  } catch (error) {
    socket.close();
    throw error instanceof ConexusError && !(error instanceof ConnectError) ? unproven(error) : error;
  }
}

/** REGISTER as a v1.1 gateway wants it, at the start and to renew. */
export function registerPayload(config, nonce, metadata) {
  return {
    public_key: config.identity.publicKeyBase58,
    nonce,
    audience: config.endpoint.audience,
    metadata,
    credentials: config.credentials,
  };
}

async function registerV1(config, socket, inbox) {
  const { identity, endpoint } = config;
  const { text } = await signMessage(identity, {
    to: identity.did,
    type: 'REGISTER',
    payload: { public_key: identity.publicKeyBase58 },
    audience: endpoint.audience,
  });
  await socket.send(text, { timeout: config.connectTimeout });
  const session = Session.v1(config.heartbeat);
  return { socket, session, trust: new Trust({ ...config, gateway: null }), early: inbox.end() };
}

async function registerChallenged(config, metadata, socket, inbox) {
  const challenge = Message.parse(await inbox.next(), RULES.V1_1);
  await challenge.verify();
  if (challenge.type === 'ERROR') throw await refused(challenge, inbox);
  if (challenge.type !== 'CHALLENGE') throw outOfTurn(challenge.type, 'CHALLENGE');
  const gateway = challenge.from;
  const { nonce } = challenge.payload;
  const { id, text } = await signMessage(config.identity, {
    to: config.identity.did,
    type: 'REGISTER',
    payload: registerPayload(config, nonce, metadata),
  });
  await socket.send(text, { timeout: config.connectTimeout });

  const trust = new Trust({ ...config, gateway });
  const early = [];
  for (;;) {
    const received = await inbox.next();
    const { message, isGateway } = await trust.judge(received).catch(ignoreUnverified);
    if (!message) continue;
    if (isGateway && message.type === 'ERROR') throw await refused(message, inbox);
    if (isGateway && message.type === 'REGISTERED' && message.correlationId === id) {
      const session = Session.v1_1(gateway, nonce, message.payload, config.heartbeat);
      return { socket, session, trust, early: [...early, ...inbox.end()] };
    }
    if (early.length >= MAX_EARLY) throw outOfTurn(message.type, 'REGISTERED');
    early.push(received);
  }
}

/** What is nobody's word does not hold up a registration. */
function ignoreUnverified(error) {
  if (error instanceof ConexusError && error.kind !== 'crypto_unavailable') return {};
  throw error;
}

async function refused(message, inbox) {
  const refusal = new Refused(message);
  const close = await inbox.close(CLOSE_AFTER_REFUSAL);
  return new ConnectError('refused', `registration refused: ${refusal.message}`, { refusal, close });
}

function outOfTurn(got, expected) {
  return new ConnectError('out_of_turn', `the gateway said ${got} where ${expected} was due`);
}

function unproven(error) {
  if (error.kind === 'crypto_unavailable') {
    return new ConnectError('crypto_unavailable', error.message, { cause: error });
  }
  if (error instanceof Unverified) {
    return new ConnectError('unproven_gateway', 'the gateway does not prove its identity', { cause: error });
  }
  return new ConnectError('malformed', "the gateway's answer is malformed", { cause: error });
}

/** Texts as they come, taken one by one. */
class Inbox {
  #texts = [];
  #waiting = null;
  #close = null;
  #socket;
  #signal;

  constructor(socket, signal) {
    this.#socket = socket;
    this.#signal = signal;
    socket.listen(
      (text) => {
        if (this.#texts.length > MAX_EARLY) socket.close(4000, 'too much before registration');
        else this.#texts.push(text);
        this.#waiting?.();
      },
      (close) => {
        this.#close = close;
        this.#waiting?.();
      },
    );
    signal.addEventListener('abort', () => this.#waiting?.(), { once: true });
  }

  async next() {
    while (this.#texts.length === 0) {
      this.#signal.throwIfAborted();
      if (this.#close) throw closedByGateway(this.#close);
      await this.#something();
    }
    const text = this.#texts.shift();
    if (text === null) throw outOfTurn('a binary frame', 'a message');
    return text;
  }

  /** The gateway's close, if it comes in time. */
  async close(patience) {
    let isOver = false;
    const timer = setTimeout(() => {
      isOver = true;
      this.#waiting?.();
    }, patience);
    while (this.#close === null && !isOver && !this.#signal.aborted) await this.#something();
    clearTimeout(timer);
    return this.#close;
  }

  /** What nobody has taken; from now on the socket is somebody else's. */
  end() {
    this.#socket.unlisten();
    return this.#texts.splice(0);
  }

  #something() {
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }
}

function closedByGateway(close) {
  return close.code === 1006
    ? new ConnectError('ended', 'the connection ended before the registration was done', { close })
    : new ConnectError('closed_by_gateway', `the gateway closed with ${close.code} ${close.reason}`, { close });
}

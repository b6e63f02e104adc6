// Judging what arrives: is it a message, and is it its sender's word?
//
// The gateway speaks under the key of its CHALLENGE, agents under the key in their DID. A v1 gateway has
// neither: what it says itself, ERROR and PONG, carries a name without a key and is taken as it is. No agent
// can have such a name.

import { Malformed, Unverified } from '../errors.js';
import { keyOf } from '../protocol/did.js';
import { Message } from '../protocol/envelope.js';
import { RULES } from '../protocol/schema.js';

const THE_GATEWAYS = new Set(['CHALLENGE', 'REGISTERED', 'PRESENCE']);
const KEYLESS = new Set(['ERROR', 'PONG']);

export class Trust {
  #rules;
  #gateway;
  #verifyAgents;
  #tolerateQuirks;

  /** `gateway` is the DID that sent CHALLENGE; null on ioap.v1. */
  constructor({ gateway, verifyIncoming, tolerateQuirks }) {
    this.#rules = gateway === null ? RULES.V1_COMPAT : RULES.V1_1;
    this.#gateway = gateway === null ? null : keyOf(gateway);
    this.#verifyAgents = verifyIncoming;
    this.#tolerateQuirks = tolerateQuirks;
  }

  /** `{message, isGateway, key, mayBeGateway}`; throws Malformed or Unverified. */
  async judge(text) {
    const message = this.#parse(text);
    const key = this.#key(message);
    if (key === null) return { message, isGateway: true, key, mayBeGateway: true };
    if (key === this.#gateway) {
      await message.verify();
      return { message, isGateway: true, key, mayBeGateway: true };
    }
    if (this.#gateway !== null && THE_GATEWAYS.has(message.type)) {
      throw new Unverified('not_the_gateway', 'only the gateway may say this', sender(message));
    }
    if (this.#verifyAgents) await this.#verify(message);
    // An id is known to its recipient alone, so nobody else can pose as a v1 gateway with one.
    const mayBeGateway = this.#gateway === null && KEYLESS.has(message.type);
    return { message, isGateway: false, key, mayBeGateway };
  }

  get #mayBeQuirky() {
    return this.#tolerateQuirks && this.#rules === RULES.V1_1;
  }

  #parse(text) {
    try {
      return Message.parse(text, this.#rules);
    } catch (error) {
      if (!(error instanceof Malformed) || !this.#mayBeQuirky) throw error;
      try {
        return Message.parse(text, RULES.V1_COMPAT);
      } catch {
        throw error;
      }
    }
  }

  #key(message) {
    try {
      return keyOf(message.from);
    } catch (error) {
      if (this.#gateway === null && KEYLESS.has(message.type)) return null;
      throw new Unverified('sender', "the sender's did holds no usable key", { cause: error, ...sender(message) });
    }
  }

  /** The gateway forwards to the letter, so an agent's message may have the reference client's quirks. */
  async #verify(message) {
    try {
      await message.verify();
    } catch (error) {
      if (!(error instanceof Unverified)) throw error;
      const quirky = error.kind === 'signature' && this.#mayBeQuirky && asQuirky(message.text);
      if (quirky && (await verifies(quirky))) return;
      throw Object.assign(error, sender(message));
    }
  }
}

function sender(message) {
  return { from: message.from, id: message.id };
}

function asQuirky(text) {
  try {
    return Message.parse(text, RULES.V1_COMPAT);
  } catch {
    return null;
  }
}

async function verifies(message) {
  try {
    await message.verify();
    return true;
  } catch (error) {
    if (error instanceof Unverified) return false;
    throw error;
  }
}

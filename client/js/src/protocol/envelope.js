// The envelope of a message: parsed once and checked whole; made canonical and signed.
//
// A Message that exists is one by the schema; whether it is its sender's word `verify` says. What is written
// is canonical, so that receivers verify over the text as it is.

import { Malformed, Unverified } from '../errors.js';
import { fromBase64, utf8, utf8Length } from './bytes.js';
import { verifyingKey } from './did.js';
import { verifyStrict } from './ed25519.js';
import { JsonError, canonical, parse, stringify, value } from './json.js';
import { RULES, faultOfPayload } from './schema.js';
import { formatTimestamp, parseTimestamp } from './timestamp.js';

const MAX_ID_BYTES = 128;
const VERSION = '1.0';

/** One message, as it arrived. */
export class Message {
  #root;
  #rules;

  constructor(text, root, rules) {
    const text_ = (name) => root.members.get(name)?.text ?? null;
    this.text = text;
    this.id = text_('id');
    this.correlationId = text_('correlation_id');
    this.timestamp = text_('timestamp');
    this.from = text_('from');
    this.to = text_('to');
    this.type = text_('type');
    this.signature = text_('signature');
    this.payload = withoutNulls(value(root.members.get('payload')), root.members.get('payload'));
    this.#root = root;
    this.#rules = rules;
  }

  /** Reads a text and checks the whole schema; throws Malformed. */
  static parse(text, rules = RULES.V1_1) {
    const root = parsed(text);
    if (root.kind !== 'object') throw new Malformed('not_object');
    const fault = faultOfEnvelope(root.members, rules);
    if (fault !== null) throw new Malformed(fault, validId(root.members));
    return new Message(text, root, rules);
  }

  /** When it was written, by its sender's clock: milliseconds since 1970, or null. */
  get time() {
    return this.timestamp === null ? null : parseTimestamp(this.timestamp);
  }

  /** The text under the signature: canonical JSON of the message without it. */
  signedText() {
    const members = new Map(this.#root.members);
    members.delete('signature');
    return canonical({ kind: 'object', members });
  }

  /**
   * Verifies the signature with the key in `from`, strictly; throws Unverified. Where the rules tolerate the
   * reference client, also over the timestamp without the `Z` that it adds after it has signed.
   */
  async verify() {
    if (this.signature === '') throw new Unverified('unsigned', 'it is not signed');
    const signature = this.signature.length === 88 ? fromBase64(this.signature) : null;
    if (signature?.length !== 64) throw new Unverified('signature', 'not the base64 of a signature');
    let key;
    try {
      key = await verifyingKey(this.from);
    } catch (error) {
      if (error.name !== 'DidError') throw error;
      throw new Unverified('sender', "the sender's did holds no usable key", { cause: error });
    }
    if (await verifyStrict(key, utf8(this.signedText()), signature)) return;
    const quirky = this.#signedTextWithoutZ();
    if (quirky !== null && (await verifyStrict(key, utf8(quirky), signature))) return;
    throw new Unverified('signature', 'the signature does not match');
  }

  #signedTextWithoutZ() {
    if (!this.#rules.compat || !this.timestamp?.endsWith('Z')) return null;
    const members = new Map(this.#root.members);
    members.delete('signature');
    members.set('timestamp', { kind: 'string', text: this.timestamp.slice(0, -1) });
    return canonical({ kind: 'object', members });
  }
}

/** A message of one's own: signed wire text and the id that it got. */
export async function signMessage(identity, { to, type, payload = {}, id, correlationId, timestamp, audience }) {
  const envelope = {
    id: id ?? globalThis.crypto.randomUUID(),
    correlation_id: correlationId ?? undefined,
    timestamp: formatTimestamp(timestamp ?? Date.now()),
    from: identity.did,
    to,
    type,
    payload,
    version: VERSION,
    audience,
  };
  const signature = await identity.sign(utf8(stringify(envelope)));
  return { id: envelope.id, text: stringify({ ...envelope, signature }) };
}

function parsed(text) {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    const reasons = { duplicate: 'duplicate_member', surrogate: 'invalid_unicode' };
    throw new Malformed(reasons[error.kind] ?? 'not_json');
  }
}

function faultOfEnvelope(members, rules) {
  const wrongText = (name) => (members.get(name)?.kind === 'string' ? null : `wrong_type:${name}`);
  const needed = (name) => (members.has(name) ? wrongText(name) : `missing_field:${name}`);
  const wanted = (name) => (members.has(name) ? wrongText(name) : null);
  const idFault = () => (validId(members) === null ? 'bad_id' : null);
  const correlationFault = () => (members.get('correlation_id')?.kind === 'null' ? null : wanted('correlation_id'));
  const timeFault = () => {
    const time = members.get('timestamp');
    return time && parseTimestamp(time.text) === null ? 'bad_timestamp' : null;
  };
  const payload = members.get('payload');
  const payloadFault = () =>
    !payload ? 'missing_field:payload' : payload.kind === 'object' ? null : 'wrong_type:payload';
  const version = members.get('version');
  const versionFault = () => (version && version.text !== VERSION ? 'unsupported_version' : null);
  const type = members.get('type');
  const typeFault = () => (rules.types.includes(type.text) ? null : 'unknown_type');
  return (
    needed('id') ?? idFault() ?? correlationFault() ?? wanted('timestamp') ?? timeFault() ??
    needed('from') ?? needed('to') ?? needed('type') ?? payloadFault() ?? needed('signature') ??
    wanted('version') ?? versionFault() ?? typeFault() ?? faultOfPayload(type.text, rules, payload)
  );
}

function validId(members) {
  const id = members.get('id');
  const isOne = id?.kind === 'string' && id.text.length > 0 && utf8Length(id.text) <= MAX_ID_BYTES;
  return isOne ? id.text : null;
}

/** Members that are null count as absent, but for those that may be anything. */
function withoutNulls(payload, node) {
  for (const [name, member] of node.members) {
    if (member.kind === 'null' && name !== 'result') delete payload[name];
  }
  return payload;
}

// Which members each payload has: the tables that decide what is a message.
//
// The same tables as the gateway's (docs/protocol.md). A member that is not in its table makes the message
// malformed; nothing is converted. `envelope` applies them.

import { parseTimestamp } from './timestamp.js';

export const ERROR_CODES = Object.freeze([
  'INVALID_SIGNATURE',
  'UNKNOWN_AGENT',
  'CONNECTION_REFUSED',
  'TIMEOUT',
  'MALFORMED_MESSAGE',
  'UNSUPPORTED_VERSION',
  'INTERNAL_ERROR',
]);

/** The types of v1, of which all but the first two and the last two are for other agents. */
const V1 = 'REGISTER UNREGISTER OFFER ANSWER ICE_CANDIDATE INTENT EXEC_REQUEST EXEC_RESPONSE ERROR PING PONG'.split(' ');
const V1_1 = [...V1, 'CHALLENGE', 'REGISTERED', 'WATCH', 'UNWATCH', 'PRESENCE'];

/** By which rules a message is judged. `compat` tolerates what the reference client does. */
export const RULES = Object.freeze({
  V1_STRICT: Object.freeze({ name: 'v1', types: V1, compat: false }),
  V1_COMPAT: Object.freeze({ name: 'v1', types: V1, compat: true }),
  V1_1: Object.freeze({ name: 'v1.1', types: V1_1, compat: false }),
});

const isKind = (kind) => (node) => node.kind === kind;
const isText = isKind('string');
const isInteger = isKind('integer');
const isListOf = (item) => (node) => node.kind === 'array' && node.items.every(item);
const isObjectOf = (shapes) => (node) =>
  node.kind === 'object' &&
  Array.from(node.members).every(([name, member]) => shapes[name] !== undefined && shapes[name](member));

const SHAPES = {
  string: isText,
  integer: isInteger,
  'unsigned integer': (node) => isInteger(node) && /^\d{1,20}$/.test(node.digits) && BigInt(node.digits) < 2n ** 64n,
  number: (node) => isInteger(node) || node.kind === 'float',
  boolean: isKind('boolean'),
  object: isKind('object'),
  any: () => true,
  'error code': (node) => isText(node) && ERROR_CODES.includes(node.text),
  'list of strings': isListOf(isText),
  'list of message types': isListOf((node) => isText(node) && V1_1.includes(node.text)),
  // A server may have members that are newer than this.
  'list of ice servers': isListOf((node) => {
    const urls = node.kind === 'object' && node.members.get('urls');
    return Boolean(urls) && (isText(urls) || isListOf(isText)(urls));
  }),
  metadata: isObjectOf({
    name: isText,
    capabilities: isListOf(isText),
    attributes: (node) => node.kind === 'object' && Array.from(node.members.values()).every(isText),
  }),
  'presence state': (node) => isText(node) && ['online', 'offline'].includes(node.text),
  timestamp: (node) => isText(node) && parseTimestamp(node.text) !== null,
};

const required = (type) => ({ type, required: true, nullable: false });
const optional = (type) => ({ type, required: false, nullable: false });
const nullable = (type) => ({ type, required: false, nullable: true });

const sdp = { sdp: required('string') };
const sequence = { sequence: nullable('integer') };
const dids = { dids: required('list of strings') };

/** By type: each member's shape, whether it must be there, whether null will do. */
export const PAYLOADS = Object.freeze({
  REGISTER: { public_key: required('string') },
  UNREGISTER: { reason: nullable('string') },
  OFFER: sdp,
  ANSWER: sdp,
  ICE_CANDIDATE: {
    candidate: required('string'),
    sdp_mid: nullable('string'),
    sdp_mline_index: nullable('integer'),
  },
  INTENT: {
    query: nullable('string'),
    context: nullable('string'),
    task: nullable('string'),
    status: nullable('string'),
    required_input: nullable('string'),
    cost: nullable('string'),
    params: nullable('object'),
  },
  EXEC_REQUEST: { args: optional('object'), timeout_ms: nullable('integer'), stream: nullable('boolean') },
  EXEC_RESPONSE: {
    result: nullable('any'),
    error: nullable('string'),
    status: optional('string'),
    execution_time_ms: nullable('number'),
    stream_url: nullable('string'),
  },
  ERROR: { code: required('error code'), message: required('string'), details: nullable('object') },
  PING: sequence,
  PONG: sequence,
  CHALLENGE: { nonce: required('string'), expires_in_ms: required('unsigned integer') },
  REGISTERED: {
    session_id: required('string'),
    node_id: required('string'),
    presence_timeout_ms: required('unsigned integer'),
    heartbeat_ms: required('unsigned integer'),
    max_message_bytes: required('unsigned integer'),
    relay: required('list of message types'),
    ice_servers: optional('list of ice servers'),
    server_time: required('timestamp'),
  },
  WATCH: dids,
  UNWATCH: dids,
  PRESENCE: {
    did: required('string'),
    state: required('presence state'),
    reason: nullable('string'),
    since: required('string'),
  },
});

const REGISTER_V1_1 = {
  ...PAYLOADS.REGISTER,
  nonce: required('string'),
  audience: required('string'),
  metadata: optional('metadata'),
  credentials: optional('string'),
};

/** What a payload (a JSON node) breaks, as the test vectors call it, or null. */
export function faultOfPayload(type, rules, payload) {
  const table = type === 'REGISTER' && rules.name === 'v1.1' ? REGISTER_V1_1 : PAYLOADS[type];
  const present = new Set();
  for (const [name, node] of payload.members) {
    // The reference client sends members of other types, as null, where it has no value.
    if (node.kind === 'null' && rules.compat) continue;
    const row = Object.hasOwn(table, name) ? table[name] : undefined;
    if (!row) return `unknown_payload_field:${name.slice(0, 64)}`;
    const isAbsent = node.kind === 'null' && row.nullable;
    if (!isAbsent && !SHAPES[row.type](node)) {
      return row.type === 'error code' && isText(node) ? 'unknown_error_code' : `wrong_payload_type:${name}`;
    }
    present.add(name);
  }
  const missing = Object.keys(table).find((name) => table[name].required && !present.has(name));
  return missing === undefined ? null : `missing_payload_field:${missing}`;
}

// The test vectors that bind every implementation of the protocol.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { Identity, Message, RULES, canonicalize, didOf, keyOf, legacyDidOf } from '../src/index.js';
import { PAYLOADS, ERROR_CODES } from '../src/protocol/schema.js';
import { toHex } from '../src/protocol/bytes.js';
import { verifyingKey } from '../src/protocol/did.js';

const FOLDER = new URL('../../../protocol/tests/vectors/', import.meta.url);
const load = (name) => JSON.parse(readFileSync(new URL(name, FOLDER), 'utf8'));
const bytes = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));

const attempt = (work) => {
  try {
    return work();
  } catch {
    return null;
  }
};

test('every did names its key in both spellings', async () => {
  const { cases, invalid } = load('dids.json');
  for (const vector of cases) {
    const key = bytes(vector.public_key_hex);
    const identity = await Identity.fromSeed(bytes(vector.private_key_hex));
    assert.equal(identity.did, vector.did_standard, vector.id);
    assert.equal(identity.withLegacyDid().did, vector.did_legacy, vector.id);
    assert.equal(identity.publicKeyBase58, vector.public_key_base58, vector.id);
    assert.equal(toHex(identity.publicKey), vector.public_key_hex, vector.id);
    assert.equal(didOf(key), vector.did_standard);
    assert.equal(legacyDidOf(key), vector.did_legacy);
    for (const did of [vector.did_standard, vector.did_legacy]) {
      assert.equal(keyOf(did), vector.public_key_hex, vector.id);
      await verifyingKey(did);
    }
  }
  for (const vector of invalid) {
    assert.throws(() => keyOf(vector.did), { name: 'DidError' }, vector.why);
  }
});

test('every json text has its canonical form', () => {
  for (const vector of load('canonical_json.json').cases) {
    const ours = attempt(() => canonicalize(vector.input));
    if (vector.strict_json) assert.equal(ours, vector.canonical, vector.id);
    else assert.ok(ours === null || ours === vector.canonical, `${vector.id}: read as ${ours}`);
    if (ours !== null) assert.equal(canonicalize(ours), ours, vector.id);
  }
});

test('every message is accepted or refused as the schema says', () => {
  const { payloads, error_codes: codes, cases } = load('message_validation.json');
  assert.deepEqual([...ERROR_CODES].sort(), [...codes].sort());
  for (const [type, table] of Object.entries(payloads)) assert.deepEqual(PAYLOADS[type], table, type);
  for (const vector of cases.filter(({ normative }) => normative !== false)) {
    const strict = attempt(() => Message.parse(vector.message, RULES.V1_STRICT));
    const compat = attempt(() => Message.parse(vector.message, RULES.V1_COMPAT));
    assert.equal(strict !== null, vector.accepted, `${vector.id}: ${vector.reason}`);
    assert.equal(compat !== null, vector.accepted_compat, `${vector.id}: ${vector.reason}`);
    if (strict) assert.equal(strict.type, vector.type, vector.id);
  }
});

test('every signature holds or fails as it should', async () => {
  const verifies = async (text, rules) => {
    try {
      await Message.parse(text, rules).verify();
      return true;
    } catch (error) {
      assert.ok(['Malformed', 'Unverified'].includes(error.name), error.stack);
      return false;
    }
  };
  for (const vector of load('signed_messages.json').cases) {
    if (vector.normative === false) continue;
    const why = `${vector.id}: ${vector.why}`;
    const withQuirk = await verifies(vector.message, RULES.V1_COMPAT);
    assert.equal(withQuirk, vector.valid_with_quirk, why);
    if (attempt(() => Message.parse(vector.message, RULES.V1_STRICT)) === null) continue;
    assert.equal(await verifies(vector.message, RULES.V1_STRICT), vector.valid, why);
    if (vector.valid && vector.canonical) {
      assert.equal(Message.parse(vector.message, RULES.V1_STRICT).signedText(), vector.canonical, why);
    }
  }
});

// What can be told without a gateway: arithmetic, framing, memory, pace.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Close, Identity, Message, Session, signMessage } from '../src/index.js';
import { Freshness } from '../src/peer/freshness.js';
import { Joiner, MAX_PIECE, split, toBytes } from '../src/peer/framing.js';
import { pairOf } from '../src/peer/stats.js';
import { fromBase64, fromBase64Url, toBase64Url, toHex, utf8, utf8Length } from '../src/protocol/bytes.js';
import { hasSmallOrder, isPoint } from '../src/protocol/ed25519.js';
import { canonical, parse, stringify } from '../src/protocol/json.js';
import { parseTimestamp } from '../src/protocol/timestamp.js';
import { Backoff } from '../src/signaling/backoff.js';
import { Endpoint } from '../src/signaling/endpoint.js';
import { outcomeOf, routeBeside } from '../src/signaling/outcomes.js';
import { Pace } from '../src/signaling/pace.js';

const bytes = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));

test('an identity survives each of its forms', async () => {
  const identity = await Identity.generate();
  const jwk = await identity.toJwk();
  const forms = [
    await Identity.fromJwk(jwk),
    await Identity.fromPkcs8(await identity.toPkcs8()),
    await Identity.fromSeed(fromBase64Url(jwk.d)),
    await Identity.fromKeyPair(await identity.keyPair()),
  ];
  for (const form of forms) assert.equal(form.did, identity.did);
  const kept = await Identity.fromKeyPair(await (await Identity.generate({ extractable: false })).keyPair());
  await assert.rejects(kept.toJwk(), { kind: 'not_extractable' });
  await assert.rejects(kept.toPkcs8(), { kind: 'not_extractable' });
  const { text } = await signMessage(kept, { to: identity.did, type: 'PING' });
  await Message.parse(text).verify();
  assert.deepEqual(Object.keys(JSON.parse(JSON.stringify(identity))), ['did']);
});

test('what is no key of ours is refused', async () => {
  const [one, other] = [await Identity.generate(), await Identity.generate()];
  const jwk = await one.toJwk();
  const { x } = await other.toJwk();
  for (const wrong of [null, {}, { ...jwk, x }, { ...jwk, crv: 'X25519' }, { ...jwk, d: 'AA' }, { ...jwk, d: undefined }]) {
    await assert.rejects(Identity.fromJwk(wrong), { name: 'KeyError', kind: 'wrong_key' });
  }
  for (const wrong of ['', 'x', '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----', new Uint8Array(48)]) {
    await assert.rejects(Identity.fromPkcs8(wrong), { name: 'KeyError', kind: 'wrong_key' });
  }
  const mixed = { privateKey: (await one.keyPair()).privateKey, publicKey: (await other.keyPair()).publicKey };
  await assert.rejects(Identity.fromKeyPair(mixed), { kind: 'wrong_key' });
});

test('points of small order, off the curve and in a second encoding are none', () => {
  const p = '7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed';
  const encoded = (big) => bytes(big.padStart(64, '0')).reverse();
  const small = ['00', '01', '7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffec', p].map(encoded);
  small.push(bytes('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a'));
  small.push(bytes('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05'));
  for (const point of small) {
    assert.ok(hasSmallOrder(point), toHex(point));
    const negative = Uint8Array.from(point);
    negative[31] |= 0x80;
    assert.ok(hasSmallOrder(negative));
  }
  assert.equal(isPoint(encoded('02')), false, 'y = 2 is not on the curve');
  assert.equal(isPoint(encoded('03')), true);
  // y = p + 3 is y = 3 in a second encoding.
  assert.equal(isPoint(encoded('7ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff0')), false);
});

test('values are written canonically, or not at all', () => {
  const cases = [
    [{ b: 1, a: undefined, c: null }, '{"b":1,"c":null}'],
    [[1.5, 1e16, 1e-7, -0, 2 ** 53, 10n ** 20n], '[1.5,1e+16,1e-07,-0.0,9007199254740992.0,100000000000000000000]'],
    [{ '\ue000': 1, '\u{10000}': 2 }, '{"\\ue000":1,"\\ud800\\udc00":2}'],
    [new Date(0), '"1970-01-01T00:00:00.000Z"'],
    ['\u007f\n/', '"\\u007f\\n/"'],
  ];
  for (const [value, text] of cases) {
    assert.equal(stringify(value), text);
    assert.equal(canonical(parse(text)), text);
  }
  const ring = {};
  ring.ring = ring;
  for (const value of [NaN, Infinity, () => {}, Symbol('x'), '\ud800', { '\ud800': 1 }, undefined, ring]) {
    assert.throws(() => stringify(value), TypeError);
  }
  assert.throws(() => parse('['.repeat(200) + ']'.repeat(200)), { kind: 'depth' });
  const proto = Message.parse(
    '{"id":"1","from":"a","to":"b","type":"EXEC_REQUEST","signature":"","payload":{"args":{"__proto__":{"x":1}}}}',
  );
  assert.deepEqual(Object.keys(proto.payload.args), ['__proto__']);
  assert.equal(proto.payload.args.x, undefined);
});

test('base64 has one spelling', () => {
  for (const text of ['AA', 'AA=', 'AB==', 'AA==\n', ' AA==', 'A-==', 'AAA']) assert.equal(fromBase64(text), null, text);
  assert.deepEqual([...fromBase64('AA==')], [0]);
  assert.equal(toBase64Url(Uint8Array.of(255, 239)), '_-8');
  assert.deepEqual([...fromBase64Url('_-8')], [255, 239]);
  for (const text of ['', 'a', 'é', '日本', '😀', 'a😀é']) assert.equal(utf8Length(text), utf8(text).length, text);
});

test('timestamps are instants', () => {
  const cases = [
    ['1970-01-01T00:00:00Z', 0],
    ['1970-01-01T00:00:00.123456789', 123],
    ['1970-01-01T02:00:00.5+02:00', 500],
    ['1969-12-31T23:00:00-01:00', 0],
    ['0001-01-01T00:00:00Z', -62135596800000],
    ['2024-02-29T00:00:00Z', 1709164800000],
  ];
  for (const [text, millis] of cases) assert.equal(parseTimestamp(text), millis, text);
  for (const text of ['2023-02-29T00:00:00Z', '2024-01-01T24:00:00Z', '2024-01-01 00:00:00Z', '2024-01-01T00:00:00Z\n', '0000-01-01T00:00:00Z']) {
    assert.equal(parseTimestamp(text), null, text);
  }
});

test('a message is split and joined, whatever its size', () => {
  for (const size of [0, 1, 30, MAX_PIECE - 1, MAX_PIECE, 3 * MAX_PIECE + 5]) {
    const joiner = new Joiner(10 * MAX_PIECE);
    for (const data of ['x'.repeat(size), new Uint8Array(size).fill(7)]) {
      const pieces = [...split(toBytes(data), MAX_PIECE)];
      assert.ok(pieces.every((piece) => piece.length <= MAX_PIECE));
      const joined = pieces.map((piece) => joiner.take(piece.buffer));
      assert.ok(joined.slice(0, -1).every((message) => message === undefined));
      const whole = joined.at(-1);
      assert.deepEqual(typeof whole === 'string' ? whole : new Uint8Array(whole), data);
    }
  }
  const view = new Uint8Array([9, 8, 7]).subarray(1);
  assert.deepEqual([...toBytes(view).bytes], [8, 7]);
  assert.throws(() => toBytes({}), TypeError);
});

test('broken framing and messages without end are refused', () => {
  const wrong = [[[]], [[4]], [[0]], [[2, 65], [1, 65]], [[3, 255]], ['text']];
  for (const pieces of wrong) {
    const joiner = new Joiner(100);
    const take = () => {
      for (const piece of pieces) joiner.take(typeof piece === 'string' ? piece : Uint8Array.from(piece).buffer);
    };
    assert.throws(take, { name: 'ChannelError', kind: 'framing' }, JSON.stringify(pieces));
  }
  const joiner = new Joiner(100);
  joiner.take(new Uint8Array(101).buffer);
  assert.throws(() => joiner.take(Uint8Array.of(0, 1).buffer), { kind: 'too_large' });
});

test('a message counts once, near its time, and nobody makes us forget', () => {
  let now = 1_000_000;
  const fresh = new Freshness(() => now);
  const message = (id, time = now) => ({ id, time });
  assert.equal(fresh.judge('a', message('1')), 'fresh');
  assert.equal(fresh.judge('a', message('1')), 'replayed');
  assert.equal(fresh.judge('b', message('1')), 'fresh');
  assert.equal(fresh.judge('a', message('2', now - 60_001)), 'stale');
  assert.equal(fresh.judge('a', message('2', now + 60_001)), 'stale');
  assert.equal(fresh.judge('a', message('2', null)), 'undated');
  for (let id = 0; id < 300; id += 1) fresh.judge('c', message(`c${id}`));
  assert.equal(fresh.judge('c', message('one more')), 'full');
  assert.equal(fresh.judge('d', message('another agent')), 'fresh');
  now += 60_001;
  assert.equal(fresh.judge('c', message('one more')), 'fresh');
  assert.equal(fresh.judge('a', message('1', now - 60_001)), 'stale');
});

test('delays double from one second to thirty and keep half for jitter', () => {
  const backoff = new Backoff({ maxAttempts: 0 });
  for (const whole of [1, 2, 4, 8, 16, 30, 30]) {
    const delay = backoff.nextDelay();
    assert.ok(delay >= whole * 500 && delay <= whole * 1000, `${delay} of ${whole}`);
  }
  assert.equal(backoff.nextDelay(1234), 1234);
  assert.equal(backoff.nextDelay(1e9), 300_000);
  const short = new Backoff({ maxAttempts: 1 });
  short.nextDelay();
  short.sessionHeld(9_999);
  assert.equal(short.nextDelay(), null);
  short.sessionHeld(10_000);
  assert.notEqual(short.nextDelay(), null);
});

test('only a restart tells when to return, and four codes are final', () => {
  assert.equal(new Close(1012, 'reconnect_in=1500').reconnectIn, 1500);
  for (const [code, reason] of [[1012, 'reconnect_in=-1'], [1012, 'restarting'], [4004, 'reconnect_in=1500'], [1012, 'reconnect_in=99999999999999999999']]) {
    assert.equal(new Close(code, reason).reconnectIn, null, reason);
  }
  const final = Array.from({ length: 4000 }, (_, code) => 1000 + code).filter((code) => new Close(code, '').isFinal);
  assert.deepEqual(final, [4001, 4003, 4007, 4009]);
});

test('the audience is the users text without user info and fragment', () => {
  const cases = [
    ['ws://127.0.0.1:8000/ws', 'ws://127.0.0.1:8000/ws'],
    ['WSS://Gateway.Example:443/ws', 'WSS://Gateway.Example:443/ws'],
    ['wss://me:se@cret@gw.example/ws?a=@b#top', 'wss://gw.example/ws?a=@b'],
    ['ws://[::1]:9/ws#', 'ws://[::1]:9/ws'],
  ];
  for (const [url, audience] of cases) assert.equal(new Endpoint(url).audience, audience);
});

test('a silent gateway is asked before it is given up', () => {
  let now = 0;
  const pace = new Pace(10, () => now);
  now = 9;
  assert.equal(pace.isPingDue, false);
  now = 10;
  assert.equal(pace.isPingDue, true);
  pace.onPinged();
  assert.equal(pace.isPingDue, false);
  now = 24;
  assert.equal(pace.silence, null);
  now = 25;
  assert.equal(pace.silence, 25);
  pace.onHeard();
  assert.equal(pace.silence, null);
  // A tab that slept: nothing was asked, so nothing is concluded.
  now = 1000;
  assert.equal(pace.silence, null);
  assert.equal(pace.isPingDue, true);
});

test('a pair is told by its kinds', () => {
  const report = new Map([
    ['p', { id: 'p', type: 'candidate-pair', localCandidateId: 'l', remoteCandidateId: 'r', nominated: true, state: 'succeeded', currentRoundTripTime: 0.25, bytesSent: 1, bytesReceived: 2 }],
    ['l', { id: 'l', type: 'local-candidate', candidateType: 'relay', protocol: 'udp', relayProtocol: 'tls' }],
    ['r', { id: 'r', type: 'remote-candidate', candidateType: 'srflx' }],
  ]);
  const pair = { local: 'relay', remote: 'srflx', protocol: 'udp', relayProtocol: 'tls', rttMs: 250, bytesSent: 1, bytesReceived: 2 };
  assert.deepEqual(pairOf(report), pair);
  report.set('t', { id: 't', type: 'transport', selectedCandidatePairId: 'p' });
  assert.deepEqual(pairOf(report), pair);
  assert.equal(pairOf(new Map()), null);
});

test('ice servers are renewed when half the time of their credentials is over', () => {
  const registered = (servers) => ({
    ...{ session_id: 's', node_id: 'n', presence_timeout_ms: 9, heartbeat_ms: 1, max_message_bytes: 2 ** 40, relay: ['OFFER'] },
    server_time: '2026-01-01T00:00:00Z',
    ice_servers: servers,
  });
  const at = (seconds) => [{ urls: 'turn:x', username: `${Date.UTC(2026, 0, 1) / 1000 + seconds}:did`, credential: 'c' }];
  const session = Session.v1_1('did', 'nonce', registered(at(0)));
  assert.equal(session.isIceOld, true);
  session.noteIce(registered(at(3600)));
  assert.equal(session.isIceOld, false);
  session.noteIce(registered([{ urls: 'stun:x' }, { urls: 'turn:x', username: '7:somebody', credential: 'c' }]));
  assert.equal(session.isIceOld, false);
  // What a gateway may ask for is within bounds.
  assert.deepEqual([session.heartbeat, session.maxMessageBytes], [1000, 16 * 1024 * 1024]);
  assert.equal(Object.keys(session).includes('nonce'), false);
  assert.ok(Math.abs(session.clockAhead - (Date.UTC(2026, 0, 1) - Date.now())) < 1000);
});

test('an outcome is told in the words that a gateway counts, or not at all', () => {
  const pair = { local: 'host', remote: 'prflx', protocol: 'udp', relayProtocol: null, rttMs: 1, bytesSent: 0 };
  const told = { outcome: 'connected', local: 'host', remote: 'prflx', transport: 'udp', duration_ms: 70 };
  assert.deepEqual(outcomeOf(pair, 70.9), told);
  assert.deepEqual(outcomeOf(null, 1e9), { outcome: 'failed', duration_ms: 600_000 });
  for (const odd of [{ local: 'unknown' }, { remote: undefined }, { protocol: 'unknown' }]) {
    assert.equal(outcomeOf({ ...pair, ...odd }, 1), null);
  }
  for (const [websocket, route] of [
    ['ws://a:8000/ws', 'http://a:8000/ice/outcome'],
    ['wss://a', 'https://a/ice/outcome'],
    ['WSS://a/gateway/ws?x=1', 'https://a/gateway/ice/outcome'],
  ]) {
    assert.equal(routeBeside(websocket), route);
  }
});

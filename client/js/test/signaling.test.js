// Against a real gateway: registering, sending, watching, closing, coming back.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Client, Identity, signMessage } from '../src/index.js';
import { connected, next, tap, until } from './support/client.js';
import { startGateway, within } from './support/gateway.js';

test('two agents register by v1.1 and exchange signed messages', async (t) => {
  const { url } = await startGateway(t);
  const [alice, bob] = [await connected(t, url), await connected(t, url)];
  assert.equal(alice.state, 'connected');
  assert.equal(alice.session.protocol, 'ioap.v1.1');
  assert.match(alice.session.gateway, /^did:key:z6Mk/);
  assert.ok(alice.session.relay.includes('OFFER'));
  assert.ok((await alice.ping()) >= 0);

  bob.onMessage((message) => bob.reply(message, 'ANSWER', { sdp: `to ${message.payload.sdp}` }));
  const answer = await alice.sendConfirmed(bob.did, 'OFFER', { sdp: 'é\u{1f600}' });
  assert.equal(answer.payload.sdp, 'to é\u{1f600}');
  assert.equal(answer.from, bob.did);

  const legacy = await connected(t, url, { identity: (await Identity.generate()).withLegacyDid() });
  const arrived = next((handler) => legacy.onMessage(handler));
  await alice.send(legacy.did, 'OFFER', { sdp: 'x' });
  assert.equal((await arrived).from, alice.did);
});

test('what cannot be sent is told at once, and what cannot be delivered by its refusal', async (t) => {
  const { url } = await startGateway(t);
  const client = await connected(t, url);
  const stranger = (await Identity.generate()).did;
  const cases = [
    [() => client.send('did:web:x', 'OFFER', { sdp: '' }), { name: 'SendError', kind: 'recipient' }],
    [() => client.send(stranger, 'REGISTER', {}), { name: 'SendError', kind: 'not_sendable' }],
    [() => client.send(stranger, 'OFFER', { sdp: 1 }), { name: 'SendError', kind: 'invalid' }],
    [() => client.send(stranger, 'OFFER', { sdp: 'x', more: 1 }), { name: 'SendError', kind: 'invalid' }],
    [() => client.send(stranger, 'OFFER', { sdp: '\ud800' }), { name: 'SendError', kind: 'invalid' }],
    [() => client.send(stranger, 'OFFER', { sdp: 'x'.repeat(70_000) }), { name: 'SendError', kind: 'too_large' }],
    [() => client.sendConfirmed(stranger, 'OFFER', { sdp: 'x' }), { name: 'Refused', reason: 'unknown_agent' }],
    [() => client.sendConfirmed(client.did, 'OFFER', { sdp: 'x' }, { timeout: 50 }), { name: 'SendError', kind: 'timeout' }],
    [
      () => client.sendConfirmed(client.did, 'OFFER', { sdp: 'x' }, { signal: AbortSignal.abort(new Error('enough')) }),
      { message: 'enough' },
    ],
  ];
  for (const [work, expected] of cases) await assert.rejects(work, expected);
  await client.send(stranger, 'OFFER', { sdp: 'x' });
  const refused = await next((handler) => client.onError(handler), ({ name }) => name === 'Refused', 'the refusal');
  assert.equal(refused.kind, 'UNKNOWN_AGENT');
  await client.close();
  assert.equal(client.state, 'disconnected');
  await assert.rejects(client.send(stranger, 'OFFER', { sdp: 'x' }), { kind: 'not_connected' });
});

test('a v1 gateway is spoken to by v1, unless that is too old', async (t) => {
  const { url } = await startGateway(t, ['server.public_urls=[]']);
  const OnlyV1 = class extends WebSocket {
    constructor(address) {
      super(address, ['ioap.v1']);
    }
  };
  const [alice, bob] = [await connected(t, url, { WebSocket: OnlyV1 }), await connected(t, url)];
  assert.equal(alice.session.protocol, 'ioap.v1');
  assert.equal(alice.session.gateway, null);
  assert.ok((await alice.ping()) >= 0);
  bob.onMessage((message) => bob.reply(message, 'ANSWER', { sdp: 'v1' }));
  assert.equal((await alice.sendConfirmed(bob.did, 'OFFER', { sdp: 'x' })).payload.sdp, 'v1');
  const stranger = (await Identity.generate()).did;
  await assert.rejects(alice.sendConfirmed(stranger, 'OFFER', { sdp: 'x' }), { name: 'Refused' });
  await assert.rejects(alice.updateMetadata({ name: 'x' }), { kind: 'unsupported' });
  const demanding = new Client(url, await Identity.generate(), { WebSocket: OnlyV1, minProtocol: 'ioap.v1.1' });
  await assert.rejects(demanding.connect(), { name: 'ConnectError', kind: 'protocol_too_old' });
  assert.equal(demanding.state, 'error');
});

test('metadata is published at registration and by a renewal', async (t) => {
  const { url, address } = await startGateway(t);
  const client = await connected(t, url, { metadata: { name: 'first', capabilities: ['chat'] } });
  const listed = async () => (await (await fetch(`http://${address}/agents`)).json()).agents[0];
  assert.equal((await listed()).metadata.name, 'first');
  await client.updateMetadata({ name: 'second' });
  assert.deepEqual((await listed()).metadata.name, 'second');
  await assert.rejects(client.updateMetadata({ name: 'x'.repeat(100_000) }), { kind: 'too_large' });
  assert.equal((await listed()).metadata.name, 'second');
});

test('a watch tells who comes and goes, and shares what it asks', async (t) => {
  const { url } = await startGateway(t);
  const alice = await connected(t, url);
  const identity = await Identity.generate();
  const told = [];
  const heard = (state) => next((handler) => handlers.add(handler), (word) => word.state === state, `${state}`);
  const handlers = new Set();
  const watch = alice.watch([identity.did], (word) => {
    told.push(word);
    for (const handler of handlers) handler(word);
  });
  await heard('offline');
  const online = heard('online');
  const bob = await connected(t, url, { identity });
  assert.equal((await online).did, identity.did);
  // Another wish for the same agent, in the other spelling, is told what is known.
  const second = await next((handler) => alice.watch(identity.withLegacyDid().did, handler));
  assert.deepEqual([second.did, second.state], [identity.withLegacyDid().did, 'online']);
  const offline = heard('offline');
  await bob.close();
  assert.equal((await offline).reason, 'unregistered');
  watch.close();
  assert.equal(told.length, 3);
  assert.throws(() => alice.watch(['nobody'], () => {}), { kind: 'recipient' });
});

test('a handler that fails harms no other, and error handlers hear of it', async (t) => {
  const { url } = await startGateway(t);
  const [alice, bob] = [await connected(t, url), await connected(t, url)];
  const seen = [];
  bob.onMessage(() => {
    throw new Error('first');
  });
  bob.onMessage(async () => {
    await null;
    throw new Error('second');
  });
  const remove = bob.onMessage(() => seen.push('removed'));
  remove();
  const third = next((handler) => bob.onMessage(handler));
  await alice.send(bob.did, 'OFFER', { sdp: 'x' });
  await third;
  assert.deepEqual(bob.errors.map(({ name, cause }) => [name, cause.message]), [
    ['HandlerFailed', 'first'],
    ['HandlerFailed', 'second'],
  ]);
  assert.deepEqual(seen, []);
});

test('what is not proven to be its senders word reaches error handlers alone', async (t) => {
  const { url } = await startGateway(t, ['signatures.routed="off"']);
  const [alice, bob] = [await connected(t, url), await connected(t, url)];
  const seen = [];
  bob.onMessage((message) => seen.push(message.payload.sdp));
  // An identity that signs wrongly, by the key of somebody else.
  const other = await Identity.generate();
  const forger = new Proxy(alice.identity, {
    get: (target, name) => (name === 'sign' ? (bytes) => other.sign(bytes) : Reflect.get(target, name, target)),
  });
  const forged = await signMessage(forger, { to: bob.did, type: 'OFFER', payload: { sdp: 'forged' } });
  const raw = next((handler) => bob.onError(handler), ({ name }) => name === 'Unverified', 'the forgery');
  await sendRaw(url, alice, forged.text);
  const error = await raw;
  assert.deepEqual([error.kind, error.from, error.id], ['signature', alice.did, forged.id]);
  assert.deepEqual(seen, []);
});

/** Says a text in the name of a client by a connection of its own, which takes the client's place. */
async function sendRaw(url, client, text) {
  const { establish } = await import('../src/signaling/register.js');
  const { Endpoint } = await import('../src/signaling/endpoint.js');
  const config = {
    WebSocket,
    endpoint: new Endpoint(url),
    identity: client.identity,
    minProtocol: 'ioap.v1.1',
    connectTimeout: 5000,
    verifyIncoming: true,
    tolerateQuirks: false,
  };
  const { socket } = await establish(config, undefined, AbortSignal.timeout(5000));
  await socket.send(text, { timeout: 5000 });
  socket.close();
}

test('a restarted gateway is come back to, and a newer session is not fought', async (t) => {
  const first = await startGateway(t);
  const port = Number(first.address.split(':')[1]);
  const identity = await Identity.generate();
  const states = [];
  const client = await connected(t, first.url, { identity, reconnect: { initial: 20, max: 200, maxAttempts: 0 } });
  client.onState((state) => states.push(state));
  const lost = next((handler) => client.onError(handler), ({ name }) => name === 'ConnectionLost', 'the loss');
  await first.stop();
  const { close } = await lost;
  assert.equal(close.code, 1012);
  assert.equal(typeof close.reconnectIn, 'number');
  const back = next((handler) => client.onState(handler), (state) => state === 'connected', 'the return');
  await startGateway(t, [], { port });
  await back;
  assert.equal(states[0], 'disconnected');
  assert.equal(states.at(-1), 'connected');

  const replaced = next((handler) => client.onState(handler), (state) => state === 'error', 'the replacement');
  await connected(t, first.url, { identity });
  await replaced;
  assert.equal(client.errors.at(-1).close.code, 4003);
});

test('attempts end: by their number, by their time, by close', async (t) => {
  const { url, kill } = await startGateway(t);
  const client = await connected(t, url, { reconnect: { initial: 1, max: 5, maxAttempts: 2 } });
  const failed = next((handler) => client.onState(handler), (state) => state === 'error', 'the end');
  await kill();
  await failed;
  assert.deepEqual(client.errors.map(({ kind }) => kind), ['ended', 'unreachable', 'unreachable', 'gave_up']);
  await assert.rejects(client.connect(), { name: 'ConnectError', kind: 'unreachable' });
  assert.equal(client.state, 'error');

  const silent = await silentServer(t);
  const slow = new Client(silent, await Identity.generate(), { connectTimeout: 100 });
  await assert.rejects(slow.connect(), { kind: 'timeout' });
  const waiting = new Client(silent, await Identity.generate());
  const ended = assert.rejects(waiting.connect(), { kind: 'closed' });
  await assert.rejects(waiting.connect(), { kind: 'already_running' });
  await waiting.close();
  await ended;
  assert.equal(waiting.state, 'disconnected');
});

/** A server that takes connections and says nothing. */
async function silentServer(t) {
  const { createServer } = await import('node:net');
  const sockets = new Set();
  const server = createServer((socket) => sockets.add(socket.on('error', () => {})));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `ws://127.0.0.1:${server.address().port}/ws`;
}

test('a url, credentials or an engine that will not do is told before anything is dialed', async () => {
  const identity = await Identity.generate();
  const make = (url, options) => () => new Client(url, identity, options);
  assert.throws(make('http://gateway.example'), { kind: 'url' });
  assert.throws(make('gateway'), { kind: 'url' });
  assert.throws(make('ws://gateway.example/ws', { credentials: 's' }), { kind: 'credentials_in_the_clear' });
  assert.throws(make('ws://localhost.gateway.example/ws', { credentials: 's' }), { kind: 'credentials_in_the_clear' });
  for (const url of ['wss://gateway.example/ws', 'ws://127.8.9.1/ws', 'ws://[::1]/ws', 'ws://LOCALHOST/ws']) {
    make(url, { credentials: 's' })();
  }
  assert.throws(make('ws://127.0.0.1/ws', { WebSocket: null }), { kind: 'no_websocket' });
  assert.throws(make('ws://127.0.0.1/ws', { minProtocol: 'ioap.v2' }), TypeError);
  assert.throws(() => new Client('ws://127.0.0.1/ws', {}), TypeError);
});

test('credentials reach the gateway, and a denial is final', async (t) => {
  const { mkdtempSync, writeFileSync, rmSync } = await import('node:fs');
  const { join } = await import('node:path');
  const folder = mkdtempSync(join((await import('node:os')).tmpdir(), 'conexus-js-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, 'door.rhai'), 'fn on_register(event) { if event.credentials != "sesame" { return deny("denied", "no"); } }');
  const { url } = await startGateway(t, [`scripts.path="${folder}"`, `hook.door.use="script:door"`, 'chain.on_register=[{hook="door"}]']);
  await connected(t, url, { credentials: 'sesame' });
  const denied = new Client(url, await Identity.generate(), { retryFirst: true });
  const error = await denied.connect().catch((caught) => caught);
  assert.deepEqual([error.kind, error.close.code, error.isFinal], ['refused', 4007, true]);
  assert.equal(denied.state, 'error');
});

test('who sends faster than the handlers take is cut off, and errors do not pile up', async (t) => {
  const { url } = await startGateway(t);
  const line = tap();
  const client = await connected(t, url, { ...line, inboundQueue: 20, reconnect: false });
  let release;
  const held = new Promise((resolve) => {
    release = resolve;
  });
  client.onMessage(() => held);
  client.onError(() => held);
  for (let n = 0; n < 100; n += 1) line.inject('no message');
  const { text } = await signMessage(client.identity, { to: client.did, type: 'OFFER', payload: { sdp: 'x' } });
  for (let n = 0; n < 100; n += 1) line.inject(text);
  await within(until(() => client.state === 'error'), 'the end of the connection');
  release();
  await within(until(() => client.errors.some(({ kind }) => kind === 'errors_untold')), 'what was left out');
  assert.ok(client.errors.length < 30, `${client.errors.length} errors`);
});

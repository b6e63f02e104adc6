// Peers over real WebRTC (the native one for Node), signaled by a real gateway.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { test } from 'node:test';

import wrtc from '@roamhq/wrtc';

import { Identity, RequestError, signMessage } from '../src/index.js';
import { connected, next, tap, until } from './support/client.js';
import { startGateway, within } from './support/gateway.js';

const { RTCPeerConnection } = wrtc;

/** A client with WebRTC. */
const agent = (t, url, options = {}) => connected(t, url, { RTCPeerConnection, ...options });

/** Two clients, the first of which has the smaller key and so gives way. */
async function pair(t, url, options = {}) {
  const identities = [await Identity.generate(), await Identity.generate()];
  identities.sort((a, b) => (a.key < b.key ? -1 : 1));
  return Promise.all(identities.map((identity) => agent(t, url, { ...options, identity })));
}

/** Both ends of one connection. */
async function connectedPeers(t, settings, options) {
  const gateway = await startGateway(t, settings);
  const [a, b] = await pair(t, gateway.url, options);
  const incoming = next((handler) => b.onPeer(handler), undefined, 'the peer');
  const there = await within(a.connectPeer(b.did), 'the connection');
  return { gateway, a, b, there, back: await incoming };
}

const sha256 = (bytes) => createHash('sha256').update(new Uint8Array(bytes)).digest('hex');

test('two agents find each other and talk by several channels', async (t) => {
  const { a, b, there, back } = await connectedPeers(t);
  assert.deepEqual([there.did, back.did], [b.did, a.did]);
  assert.deepEqual([there.state, there.path], ['connected', 'direct']);
  assert.equal(await a.connectPeer(b.identity.withLegacyDid().did), there);

  const opened = next((handler) => back.onChannel(handler));
  const chat = await there.openChannel('chat', { protocol: 'lines' });
  const other = await opened;
  assert.deepEqual([other.label, other.protocol, other.isFramed], ['chat', 'lines', true]);
  await chat.send('early é');
  const heard = [];
  const all = next((handler) => other.onMessage((message) => handler(heard.push(message))), (count) => count === 3);
  await chat.send('');
  await chat.send(Uint8Array.of(1, 2, 3));
  await all;
  assert.deepEqual(heard.slice(0, 2), ['early é', '']);
  assert.deepEqual([...new Uint8Array(heard[2])], [1, 2, 3]);

  const lossyOpened = next((handler) => back.onChannel(handler), ({ label }) => label === 'lossy');
  const lossy = await there.openChannel('lossy', { ordered: false, maxRetransmits: 0, protocol: 'p' });
  const lossyOther = await lossyOpened;
  assert.deepEqual([lossyOther.ordered, lossyOther.maxRetransmits, lossyOther.isFramed, lossyOther.protocol], [false, 0, false, 'p']);
  const answer = next((handler) => lossy.onMessage(handler));
  await lossyOther.send('raw');
  assert.equal(await answer, 'raw');
  await assert.rejects(lossy.send('x'.repeat(70_000)), { kind: 'too_large' });

  const { pair: way, connectMs } = await there.stats();
  assert.ok(['host', 'prflx'].includes(way.local) && way.bytesSent > 0 && connectMs > 0, JSON.stringify(way));
  await assert.rejects(there.openChannel('conexus.x'), { kind: 'label' });
  await assert.rejects(there.openChannel('x', { maxRetransmits: 1, maxPacketLifeTime: 1 }), { kind: 'options' });
  await assert.rejects(a.connectPeer(a.did), { kind: 'recipient' });

  const ended = next((handler) => other.onClose(handler));
  await chat.close();
  assert.equal(await ended, null);
  await assert.rejects(chat.send('late'), { kind: 'closed' });
});

test('a message of many pieces arrives whole, and sending waits for room', async (t) => {
  const { there, back } = await connectedPeers(t);
  const opened = next((handler) => back.onChannel(handler));
  const channel = await there.openChannel('file');
  const other = await opened;
  const chunks = Array.from({ length: 4 }, () => randomBytes(3 * 1024 * 1024 + 1));
  const heard = [];
  const all = next((handler) => other.onMessage((message) => handler(heard.push(message))), (count) => count === chunks.length);
  let most = 0;
  for (const chunk of chunks) {
    await channel.send(chunk);
    most = Math.max(most, channel.bufferedAmount);
  }
  await all;
  assert.deepEqual(heard.map(sha256), chunks.map(sha256));
  assert.ok(most <= 1024 * 1024 + 32 * 1024, `${most} bytes were unsent`);
  await assert.rejects(channel.send(new Uint8Array(17 * 1024 * 1024)), { kind: 'too_large' });
});

test('when both offer at once there is one connection', async (t) => {
  const { url } = await startGateway(t);
  const [a, b] = await pair(t, url);
  const unexpected = [];
  for (const client of [a, b]) client.onPeer((peer) => unexpected.push(peer));
  for (let round = 0; round < 8; round += 1) {
    const [there, back] = await within(Promise.all([a.connectPeer(b.did), b.connectPeer(a.did)]), 'both');
    const opened = next((handler) => back.onChannel(handler));
    const channel = await there.openChannel('x');
    const heard = next((handler) => opened.then((other) => other.onMessage(handler)));
    await channel.send(`round ${round}`);
    assert.equal(await heard, `round ${round}`);
    await Promise.all([there.close(), back.closed]);
  }
  assert.deepEqual([a.peers, b.peers, unexpected], [[], [], []]);
});

test('requests are answered, with progress, parts and errors', async (t) => {
  const { a, b, there } = await connectedPeers(t);
  b.onRequest(async (request) => {
    assert.equal(request.from, a.did);
    const { args } = request;
    if (args.do === 'fail') throw new Error('a secret');
    if (args.do === 'refuse') throw new RequestError('no', 'not today');
    if (args.do === 'wait') {
      await new Promise((resolve) => request.signal.addEventListener('abort', resolve));
      aborted.push(request.signal.reason.kind);
      return null;
    }
    await request.progress({ done: 0.5 });
    for (const part of args.parts ?? []) await request.part(part);
    return { got: args };
  });
  const aborted = [];
  const progress = [];
  assert.deepEqual(await there.request({ x: [1, 1.5, 'é'] }, { onProgress: (word) => progress.push(word) }), {
    got: { x: [1, 1.5, 'é'] },
  });
  assert.deepEqual(progress, [{ done: 0.5 }]);

  const parts = [];
  const stream = there.stream({ parts: ['a', 'b', 'c'] });
  let step = await stream.next();
  for (; !step.done; step = await stream.next()) parts.push(step.value);
  assert.deepEqual(parts, ['a', 'b', 'c']);
  assert.deepEqual(step.value, { got: { parts: ['a', 'b', 'c'] } });

  await assert.rejects(there.request({ do: 'fail' }), { name: 'RequestError', kind: 'failed', message: 'the request failed' });
  assert.equal(b.errors.find(({ name }) => name === 'HandlerFailed').cause.message, 'a secret');
  await assert.rejects(there.request({ do: 'refuse' }), { kind: 'failed', message: 'not today' });

  const cancel = new AbortController();
  const waiting = there.request({ do: 'wait' }, { signal: cancel.signal });
  setTimeout(() => cancel.abort(new Error('enough')), 10);
  await assert.rejects(waiting, { message: 'enough' });
  await assert.rejects(there.request({ do: 'wait' }, { timeout: 30 }), { kind: 'timeout' });
  // Answers come in order, so both cancellations have been there.
  await there.request({});
  assert.deepEqual(aborted, ['cancelled', 'cancelled']);

  await assert.rejects(there.intent({ query: 'who?' }), { name: 'Refused', reason: 'not_served' });
  b.onIntent((message) => ({ status: 'ok', task: message.payload.query }));
  assert.deepEqual(await there.intent({ query: 'who?' }), { status: 'ok', task: 'who?' });
  assert.ok((await there.ping()) >= 0);
  // It may fail before the channel is closed, so somebody must be waiting for it by then.
  const late = assert.rejects(there.request({ do: 'wait' }), { kind: 'lost' });
  await there.close();
  await late;
  await assert.rejects(there.request({}), { kind: 'not_connected' });
});

test('an orderly close is told from a loss, and connecting anew works', async (t) => {
  const { gateway, a, b, there, back } = await connectedPeers(t);
  const states = [];
  back.onState((state) => states.push(state));
  await there.close();
  assert.equal(await within(back.closed, 'the other end'), null);
  assert.deepEqual(states, ['disconnecting', 'disconnected']);
  const again = next((handler) => b.onPeer(handler));
  const peer = await a.connectPeer(b.did);
  assert.notEqual(peer, there);
  // A new OFFER of the same agent, as of a page that was loaded anew, takes the place of what it had.
  const old = await again;
  const third = next((handler) => b.onPeer(handler));
  const reborn = await agent(t, gateway.url, { identity: a.identity });
  const newest = await reborn.connectPeer(b.did);
  await within(old.closed, 'the end of the older');
  assert.equal((await third).did, a.did);
  assert.ok((await newest.ping()) >= 0);
});

test('who is not welcome, not there or has no WebRTC is told so', async (t) => {
  const { url } = await startGateway(t);
  const [a, b, c] = [await agent(t, url), await agent(t, url), await agent(t, url, { RTCPeerConnection: null })];
  b.onPeer(() => {}, { accept: async (did) => did !== a.did });
  await assert.rejects(a.connectPeer(b.did), (error) => error.kind === 'refused' && error.cause.reason === 'declined');
  assert.deepEqual(b.peers, []);
  await assert.rejects(a.connectPeer((await Identity.generate()).did), ({ cause }) => cause.reason === 'unknown_agent');
  await assert.rejects(c.connectPeer(b.did), { kind: 'no_webrtc' });
  c.onPeer(() => {});
  await assert.rejects(a.connectPeer(c.did), ({ cause }) => cause.reason === 'declined');
  // Without onPeer signaling is the application's own.
  const own = next((handler) => a.onMessage(handler));
  await b.send(a.did, 'OFFER', { sdp: 'by hand' });
  assert.equal((await own).payload.sdp, 'by hand');
  assert.deepEqual(a.errors, []);
});

test('an agent that does not answer costs its time and no more', async (t) => {
  const { url } = await startGateway(t);
  const [a, b] = await pair(t, url);
  b.onMessage(() => {});
  const error = await a.connectPeer(b.did, { answerTimeout: 50, attempts: 1 }).catch((caught) => caught);
  assert.deepEqual([error.name, error.kind], ['PeerError', 'no_answer']);
  const slow = await a.connectPeer(b.did, { timeout: 80, attempts: 3, answerTimeout: 60 }).catch((caught) => caught);
  assert.equal(slow.kind, 'timeout');
  assert.deepEqual(a.peers, []);
});

test('forged, replayed, stale and misdirected offers are refused', async (t) => {
  const { url } = await startGateway(t, ['signatures.routed="off"']);
  const line = tap();
  const [a, b, mallory] = [await agent(t, url), await agent(t, url, line), await agent(t, url)];
  const peers = [];
  b.onPeer((peer) => peers.push(peer));
  const refusal = (kind) => next((handler) => b.onError(handler), (error) => error.kind === kind, kind);
  const offer = await sdp(t);

  // The gateway would let nobody speak as `a`; a gateway that is not honest could.
  const deliver = line.inject;
  const forgery = refusal('signature');
  const forged = await signMessage(mallory.identity, { to: b.did, type: 'OFFER', payload: { sdp: offer } });
  deliver(forged.text.replace(mallory.did, a.did));
  await forgery;

  const misdirected = refusal('not_for_us');
  deliver((await signMessage(a.identity, { to: mallory.did, type: 'OFFER', payload: { sdp: offer } })).text);
  await misdirected;

  const stale = refusal('refused_offer');
  deliver((await signMessage(a.identity, { to: b.did, type: 'OFFER', payload: { sdp: offer }, timestamp: Date.now() - 120_000 })).text);
  await stale;
  assert.deepEqual(b.peers, []);

  const arrived = until(() => peers.length === 1);
  const there = await a.connectPeer(b.did);
  // Each side opens when it is its turn.
  await within(arrived, 'the other side');
  const original = line.received.find((text) => text.includes('"type":"OFFER"'));
  const replay = refusal('refused_offer');
  deliver(original);
  await replay;
  assert.equal(there.state, 'connected');
  assert.deepEqual([peers.length, b.peers.length], [1, 1]);
  assert.ok((await there.ping()) >= 0);
});

test('where no direct way opens the gateway carries requests, if it says so', async (t) => {
  const relay = 'routing.relay=["OFFER","ANSWER","ICE_CANDIDATE","ERROR","EXEC_REQUEST","EXEC_RESPONSE","INTENT"]';
  const { url } = await startGateway(t, [relay]);
  const [a, b] = [await agent(t, url, { RTCPeerConnection: null }), await agent(t, url)];
  b.onRequest(async (request) => {
    await request.progress(1);
    return { twice: request.args.n * 2 };
  });
  b.onIntent(() => ({ status: 'ok' }));
  const progress = [];
  assert.deepEqual(await a.request(b.did, { n: 21 }, { onProgress: (word) => progress.push(word) }), { twice: 42 });
  assert.deepEqual(progress, [1]);
  const peer = await a.connectPeer(b.did, { fallback: true });
  assert.deepEqual([peer.path, peer.state], ['gateway', 'connected']);
  assert.deepEqual(await peer.request({ n: 1 }), { twice: 2 });
  assert.deepEqual(await peer.intent({ query: 'x' }), { status: 'ok' });
  await assert.rejects(peer.openChannel('x'), { kind: 'not_connected' });
  await assert.rejects(peer.ping(), { kind: 'unsupported' });
  const absent = (await Identity.generate()).did;
  await assert.rejects(a.request(absent, {}), { name: 'Refused', reason: 'unknown_agent' });

  const strict = await startGateway(t);
  const [c, d] = [await agent(t, strict.url, { RTCPeerConnection: null }), await agent(t, strict.url)];
  await assert.rejects(c.connectPeer(d.did, { fallback: true }), { kind: 'no_webrtc' });
  await assert.rejects(c.request(d.did, {}), { kind: 'not_relayed' });
});

test('the channel outlives the gateway', async (t) => {
  const { gateway, a, there, back } = await connectedPeers(t, [], { reconnect: false });
  const lost = next((handler) => a.onState(handler), (state) => state === 'error');
  await gateway.kill();
  await lost;
  const opened = next((handler) => back.onChannel(handler));
  const channel = await there.openChannel('x');
  const heard = next((handler) => opened.then((other) => other.onMessage(handler)));
  await channel.send('still here');
  assert.equal(await heard, 'still here');
  assert.ok((await there.ping()) >= 0);
});

test('twelve peers at once are no trouble for one client, and there is a bound', async (t) => {
  const { url } = await startGateway(t);
  const hub = await agent(t, url, { maxPeers: 12 });
  hub.onPeer(() => {});
  hub.onRequest(({ args }) => args.n);
  const others = await Promise.all(Array.from({ length: 12 }, () => agent(t, url)));
  const peers = await within(Promise.all(others.map((other) => other.connectPeer(hub.did))), 'all');
  assert.deepEqual(await Promise.all(peers.map((peer, n) => peer.request({ n }))), peers.map((_, n) => n));
  assert.equal(hub.peers.length, 12);
  const extra = await agent(t, url);
  await assert.rejects(extra.connectPeer(hub.did, { attempts: 1 }), ({ cause }) => cause.reason === 'busy');
});

/** Connections that say to be broken until the way has been sought anew, if that `repairs`. */
function breakable({ repairs }) {
  const all = [];
  function Breakable(configuration) {
    const pc = new RTCPeerConnection(configuration);
    let isBroken = false;
    const own = {
      async setRemoteDescription(description) {
        await pc.setRemoteDescription(description);
        if (!isBroken || !repairs) return;
        isBroken = false;
        pc.onconnectionstatechange();
      },
    };
    all.push(() => {
      isBroken = true;
      pc.onconnectionstatechange();
    });
    return new Proxy(pc, {
      get(target, name) {
        if (name === 'connectionState' && isBroken) return 'failed';
        const value = own[name] ?? target[name];
        return typeof value === 'function' ? value.bind(target) : value;
      },
      set: (target, name, value) => Reflect.set(target, name, value),
    });
  }
  return { RTCPeerConnection: Breakable, breakAll: () => all.forEach((breakOne) => breakOne()) };
}

test('a way that fails is sought anew, and a loss is told when that does not help', async (t) => {
  const { url } = await startGateway(t);
  const [a, b] = await pair(t, url);
  b.onPeer(() => {});
  b.onRequest(() => 'here');
  const mended = breakable({ repairs: true });
  const peer = await a.connectPeer(b.did, mended);
  const [away, back] = ['connecting', 'connected'].map((state) => next((handler) => peer.onState(handler), (told) => told === state));
  mended.breakAll();
  await away;
  await back;
  assert.equal(await peer.request({}), 'here');
  await peer.close();

  const gone = breakable({ repairs: false });
  const lost = await a.connectPeer(b.did, { ...gone, restarts: 1, openTimeout: 300 });
  gone.breakAll();
  const error = await within(lost.closed, 'the loss');
  assert.deepEqual([error.name, error.kind, lost.state], ['PeerError', 'lost', 'error']);
});

/** A description that another agent could have made. */
async function sdp(t) {
  const pc = new RTCPeerConnection();
  t.after(() => pc.close());
  pc.createDataChannel('x');
  return (await pc.createOffer()).sdp;
}

test('how two got connected is told to the gateway by those who want that', async (t) => {
  const { url } = await startGateway(t, ['ice.outcomes=true']);
  const told = [];
  const real = globalThis.fetch;
  t.after(() => {
    globalThis.fetch = real;
  });
  const both = new Promise((resolve) => {
    globalThis.fetch = async (to, init) => {
      const answer = await real(to, init);
      told.push([answer.status, JSON.parse(init.body)]);
      if (told.length === 2) resolve();
      return answer;
    };
  });
  const [a, b] = await pair(t, url, { reportOutcomes: true });
  b.onPeer(() => {});
  await within(a.connectPeer(b.did), 'the connection');
  await within(both, 'the reports');
  for (const [status, { outcome, local, transport, duration_ms: duration }] of told) {
    assert.deepEqual([status, outcome, transport], [204, 'connected', 'udp']);
    assert.match(local, /^(host|prflx)$/);
    assert.ok(duration < 20_000);
  }
});

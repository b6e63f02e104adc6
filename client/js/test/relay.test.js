// Two agents that have nothing but a TURN server's relays, with the credentials that the gateway mints.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import wrtc from '@roamhq/wrtc';

import { connected, next } from './support/client.js';
import { startCoturn } from './support/coturn.js';
import { startGateway, within } from './support/gateway.js';

const { RTCPeerConnection } = wrtc;
const SECRET = 'a secret of two';

test('two agents talk through a relay and nothing else, by credentials made for each', async (t) => {
  const turn = await startCoturn(t, SECRET);
  const { url } = await startGateway(t, [`ice.servers=[{urls=["${turn}"],secret="${SECRET}"}]`]);
  const [a, b] = await Promise.all([0, 1].map(() => connected(t, url, { RTCPeerConnection })));
  const [own] = await a.iceServers();
  assert.deepEqual(own.urls, [turn]);
  assert.match(own.username, /^\d+:/);
  assert.notEqual((await b.iceServers())[0].username, own.username);

  const rtcConfiguration = { iceTransportPolicy: 'relay' };
  const incoming = next((handler) => b.onPeer(handler, { rtcConfiguration }), undefined, 'the peer');
  const there = await within(a.connectPeer(b.did, { rtcConfiguration }), 'the connection');
  b.onRequest(({ args }) => args.n + 1);
  assert.equal(await there.request({ n: 1 }), 2);
  const { pair } = await there.stats();
  assert.deepEqual([pair.local, pair.remote], ['relay', 'relay']);

  const opened = next((handler) => incoming.then((back) => back.onChannel(handler)));
  const channel = await there.openChannel('big');
  const heard = next((handler) => opened.then((other) => other.onMessage(handler)));
  await channel.send(new Uint8Array(500_000).fill(7));
  assert.equal((await heard).byteLength, 500_000);
});

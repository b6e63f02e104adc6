// Not run: `tsc --noEmit` sees whether the types take what the guide shows, and refuse what is wrong.

import { Client, ConnectError, Identity, Message, PeerError, RequestError, keyOf, signMessage } from '@conexus/client';
import type { Channel, ClientOptions, Json, Metadata, Peer, PresenceWord } from '@conexus/client';

const metadata: Metadata = { name: 'n', capabilities: ['c'], attributes: { a: 'b' } };
const options: ClientOptions = { metadata, minProtocol: 'ioap.v1.1', reconnect: { maxAttempts: 0 }, WebSocket };

export async function everything(url: string, did: string): Promise<Json> {
  const identity = await Identity.generate({ extractable: false });
  const stored: Identity = await Identity.fromKeyPair(await identity.keyPair());
  const client = new Client(url, stored, { ...options, RTCPeerConnection });
  client.onMessage((message: Message) => {
    if (message.type === 'OFFER') return client.reply(message, 'ANSWER', { sdp: message.payload.sdp });
    return null;
  });
  client.onError((error) => console.log(error.kind));
  const watch = client.watch([did], (word: PresenceWord) => (word.error ? word.error.kind : word.state));
  try {
    await client.connect();
  } catch (error) {
    if (error instanceof ConnectError && error.isFinal) throw error;
  }
  const answer = await client.sendConfirmed(did, 'OFFER', { sdp: 'v=0' }, { timeout: 1, signal: new AbortController().signal });
  client.onPeer((peer: Peer) => peer.onChannel((channel) => channel.send('x')), { accept: (who) => keyOf(who) !== '' });
  client.onRequest(async (request) => {
    await request.progress({ done: 1 });
    if (request.args.x === undefined) throw new RequestError('no', 'x is missing');
    return { ok: true };
  });
  const peer = await client.connectPeer(did, { fallback: true, rtcConfiguration: { iceTransportPolicy: 'relay' } });
  const channel: Channel = await peer.openChannel('file', { ordered: false, maxRetransmits: 0 });
  await channel.send(new Uint8Array(1));
  for await (const part of peer.stream({ n: 1n })) console.log(part);
  const error: PeerError | null = await peer.closed;
  const { text } = await signMessage(identity, { to: did, type: 'PING', payload: { sequence: 1 } });
  Message.parse(text).verify();
  // @ts-expect-error an OFFER has an sdp
  await client.send(did, 'OFFER', {});
  // @ts-expect-error there is no such type
  await client.send(did, 'OFER', { sdp: '' });
  // @ts-expect-error identities are made by their functions
  new Identity();
  // @ts-expect-error there is no such option
  new Client(url, identity, { minprotocol: 'ioap.v1' });
  watch.close();
  return [answer.id, error?.kind ?? null, await peer.request({}, { onProgress: (value) => console.log(value) })];
}

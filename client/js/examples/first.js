// Two agents meet by a gateway. To run it:
//
//   conexus run
//   node --experimental-websocket examples/first.js ws://127.0.0.1:8000/ws

import { Client, Identity } from '../src/index.js';

const url = process.argv[2] ?? 'ws://127.0.0.1:8000/ws';

const bob = new Client(url, await Identity.generate(), { metadata: { name: 'bob' } });
bob.onMessage((message) => bob.reply(message, 'ANSWER', { sdp: `you said ${message.payload.sdp}` }));
await bob.connect();

const alice = new Client(url, await Identity.generate());
await alice.connect();
const answer = await alice.sendConfirmed(bob.did, 'OFFER', { sdp: 'hello' });
console.log(`${answer.from} answers: ${answer.payload.sdp}`);

await alice.close();
await bob.close();

// The demo: an identity for this tab, a connection to the gateway, and a conversation with whoever connects.

import { Client, Identity, keyOf } from '/demo/client/index.js';

import { setText, showState, short } from './dom.js';
import { someName } from './names.js';
import { CAPABILITY, People } from './people.js';
import { Talk } from './talk.js';

/** Conversations that are over and still shown. */
const MAX_OVER = 10;

const element = (id) => document.getElementById(id);

/** The gateway that served this page. */
function gatewayUrl() {
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`;
}

function showFault(text) {
  element('fault').hidden = text === null;
  setText(element('fault'), text ?? '');
}

async function start() {
  const name = someName();
  const identity = await Identity.generate();
  const client = new Client(gatewayUrl(), identity, {
    minProtocol: 'ioap.v1.1',
    metadata: { name, capabilities: [CAPABILITY] },
    reconnect: { maxAttempts: 0 },
    retryFirst: true,
  });
  const people = new People(identity.key, (did) => connect(did));

  document.title = `${name} · Conexus demo`;
  setText(element('my-name'), name);
  setText(element('my-did'), short(client.did));
  element('my-did').title = client.did;
  element('my-did').dataset.did = client.did;
  element('copy').addEventListener('click', () => copy(client.did));

  /** By peer, so that whoever asks twice for the same one gets the same conversation. */
  const talks = new Map();

  /** Conversations that are over stay to be read, the latest of them. */
  function forget() {
    const open = new Set([...talks.values()].map((talk) => talk.element));
    const over = [...element('talks').children].filter((talk) => !open.has(talk));
    for (const old of over.slice(MAX_OVER)) old.remove();
  }

  function talkTo(peer) {
    people.setTalking(peer.did, true);
    const talk = new Talk(peer, people.nameOf(peer.did), () => {
      talks.delete(peer);
      people.setTalking(peer.did, false);
    });
    talks.set(peer, talk);
    element('silence').hidden = true;
    element('talks').prepend(talk.element);
    forget();
    return talk;
  }

  async function connect(did) {
    showFault(null);
    try {
      keyOf(did);
    } catch {
      showFault("That is no agent's DID.");
      return;
    }
    people.setTalking(did, true);
    try {
      const peer = await client.connectPeer(did);
      if (talks.has(peer)) return;
      const talk = talkTo(peer);
      await talk.open();
      talk.focus();
    } catch (error) {
      people.setTalking(did, false);
      showFault(error.message);
    }
  }

  client.onPeer(async (peer) => {
    await people.look();
    talkTo(peer);
  });
  client.onState((state) => {
    showState(element('state'), state);
    element('again').hidden = state !== 'error';
    if (state === 'connected') showFault(null);
  });
  client.onError((error) => console.info(error.message));
  element('by-did').addEventListener('submit', (event) => {
    event.preventDefault();
    connect(new FormData(event.target).get('did').trim());
  });

  const begin = () => client.connect().catch((error) => showFault(error.message));
  element('again').addEventListener('click', begin);
  await begin();
  await people.follow();
}

async function copy(did) {
  try {
    await navigator.clipboard.writeText(did);
    setText(element('copy'), 'Copied');
    setTimeout(() => setText(element('copy'), 'Copy'), 1500);
  } catch {
    showFault(`Copying is not allowed here. The DID is ${did}`);
  }
}

start().catch((error) => showFault(error.message));

// A conversation with one agent: what was said, how the two are connected, and a line to write on.

import { h, setText, short, showState } from './dom.js';

const LABEL = 'chat';
const LOOK_EVERY = 1000;
/** Older lines go: a page is no archive. */
const MAX_LINES = 500;
const MAX_LETTERS = 4000;

let count = 0;

export class Talk {
  #peer;
  #channel = null;
  #log;
  #input;
  #send;
  #state;
  #way;
  #close;

  /** `whenOver` is called when the connection has ended. */
  constructor(peer, name, whenOver) {
    this.#peer = peer;
    this.#build(name);
    this.#show(peer.state);
    peer.onState((state) => this.#show(state));
    peer.onChannel((channel) => channel.label === LABEL && this.#adopt(channel));
    peer.closed.then((error) => {
      this.#note(error ? `The connection was lost: ${error.message}.` : 'The conversation is over.');
      whenOver();
    });
    this.#look();
  }

  /** Opens the channel; the other side gets it as it is opened. */
  async open() {
    this.#adopt(await this.#peer.openChannel(LABEL));
  }

  focus() {
    this.#input.focus();
  }

  #build(name) {
    count += 1;
    const id = `talk-${count}`;
    this.#state = h('span.state', { role: 'status' });
    this.#way = h('p.way.soft', {}, 'Looking for a way…');
    this.#log = h('ol.log', { role: 'log', 'aria-label': `What ${name} and you said`, tabindex: '0' });
    this.#input = h('input', { id: `${id}-line`, autocomplete: 'off', maxlength: String(MAX_LETTERS), placeholder: 'Say something' });
    this.#send = h('button.primary', { disabled: true }, 'Send');
    const close = h('button.quiet', { type: 'button', onclick: () => this.#peer.close() }, 'End');
    close.setAttribute('aria-label', `End the conversation with ${name}`);
    this.element = h(
      'article.talk',
      { 'aria-labelledby': `${id}-heading` },
      h('div.heading', {}, h('h3', { id: `${id}-heading` }, name), this.#state, close),
      h('p.did', {}, h('code', { title: this.#peer.did }, short(this.#peer.did))),
      this.#way,
      this.#log,
      h(
        'form.row',
        { onsubmit: (event) => this.#say(event) },
        h('label.unseen', { for: `${id}-line` }, `Message to ${name}`),
        this.#input,
        this.#send,
      ),
    );
    this.#close = close;
  }

  #adopt(channel) {
    this.#channel ??= channel;
    channel.onMessage((text) => typeof text === 'string' && this.#line('theirs', text));
    channel.opened.then(() => this.#enable(), () => {});
    channel.onClose(() => {
      if (this.#channel === channel) this.#channel = null;
      this.#enable();
    });
  }

  async #say(event) {
    event.preventDefault();
    const text = this.#input.value.trim();
    if (text === '' || this.#channel === null) return;
    try {
      await this.#channel.send(text);
      this.#input.value = '';
      this.#line('mine', text);
    } catch (error) {
      this.#note(`Not sent: ${error.message}.`);
    }
  }

  #line(whose, text) {
    this.#append(h(`li.${whose}`, {}, h('span.unseen', {}, whose === 'mine' ? 'You: ' : 'They: '), text.slice(0, MAX_LETTERS)));
  }

  #note(text) {
    this.#append(h('li.note', {}, text));
  }

  #append(line) {
    this.#log.append(line);
    while (this.#log.childElementCount > MAX_LINES) this.#log.firstElementChild.remove();
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  #show(state) {
    showState(this.#state, state);
    this.#enable();
  }

  #enable() {
    this.#send.disabled = this.#channel === null || this.#peer.state !== 'connected';
    const isOver = ['disconnected', 'error'].includes(this.#peer.state);
    this.#input.disabled = isOver;
    this.#close.hidden = isOver;
  }

  /** How the two are connected, as long as they are. */
  async #look() {
    try {
      const { path, pair } = await this.#peer.stats();
      setText(this.#way, describe(path, pair));
    } catch {
      // Between two connections there is nothing to tell.
    }
    if (['disconnected', 'error'].includes(this.#peer.state)) return;
    setTimeout(() => this.#look(), LOOK_EVERY);
  }
}

function describe(path, pair) {
  if (path === null) return 'Not connected.';
  if (path === 'gateway') return 'By way of the gateway.';
  if (pair === null) return 'Directly.';
  return `Directly: ${pair.local} to ${pair.remote}, ${pair.protocol.toUpperCase()}${roundTrip(pair.rttMs)}`;
}

function roundTrip(millis) {
  if (millis === null) return '';
  return `, ${millis < 1 ? 'under 1' : Math.round(millis)} ms there and back`;
}

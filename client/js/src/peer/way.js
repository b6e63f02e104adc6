// Where a message of ours goes: over the channel of a peer, or by way of the gateway.

/** The way back to whoever asked, or there and back: the channel of `peer`, or the gateway where that is null. */
export class Way {
  #port;
  #message;

  constructor(port, peer, message) {
    this.#port = port;
    this.#message = message;
    this.peer = peer;
  }

  /** Sends the question itself. */
  ask(id, draft) {
    return this.#send({ id, ...draft });
  }

  /** Answers; resolves when it is handed over. */
  answer(type, payload) {
    return this.#send({ type, payload, correlationId: this.#message.id });
  }

  /** The same where nobody waits; what fails is reported. */
  say(type, payload) {
    this.answer(type, payload).catch((error) => this.#port.report(error));
  }

  refuse(code, message, reason) {
    this.say('ERROR', { code, message, details: { reason } });
  }

  #send(draft) {
    const whole = { to: this.#message.from, ...draft };
    return this.peer ? this.#port.sayDirect(this.peer, whole) : this.#port.sayByGateway(whole);
  }
}

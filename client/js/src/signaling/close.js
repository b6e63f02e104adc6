// How a gateway closed a connection, and whether to come back.

/** After these the answer would be the same, or two sessions of one key would replace each other forever. */
const FINAL = new Set([4001, 4003, 4007, 4009]);
const RESTARTING = 1012;

/** A close code and its reason; 1005 where the gateway named none, 1006 where the connection just ended. */
export class Close {
  constructor(code, reason) {
    this.code = code;
    this.reason = reason;
    Object.freeze(this);
  }

  /** Whether dialing again is pointless. */
  get isFinal() {
    return FINAL.has(this.code);
  }

  /** The wait in milliseconds that a restarting gateway asks for, else null. */
  get reconnectIn() {
    const found = this.code === RESTARTING && /^reconnect_in=(\d{1,15})$/.exec(this.reason.trim());
    return found ? Number(found[1]) : null;
  }
}

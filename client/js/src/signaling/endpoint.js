// The gateway's URL: what is dialed, and what REGISTER names as its audience.
//
// The audience is the user's text to the letter, only without user info and fragment, which a gateway
// refuses there.

import { ConnectError } from '../errors.js';

export class Endpoint {
  constructor(text) {
    const url = parsed(withoutUserInfo(String(text).split('#')[0]));
    if (!['ws:', 'wss:'].includes(url.protocol)) {
      throw new ConnectError('url', `the scheme is ${url.protocol.slice(0, -1)}, not ws or wss`);
    }
    /** The URL as its user wrote it. */
    this.audience = withoutUserInfo(String(text).split('#')[0]);
    /** Whether what is sent there stays on this machine or is encrypted on its way. */
    this.isPrivate = url.protocol === 'wss:' || isLoopback(url.hostname);
  }
}

function parsed(text) {
  try {
    return new URL(text);
  } catch (error) {
    throw new ConnectError('url', 'not the url of a gateway', { cause: error });
  }
}

/** RFC 6761, 6.3: the name localhost is the loopback interface, always. */
function isLoopback(host) {
  return host === 'localhost' || host.endsWith('.localhost') || host === '[::1]' || /^127(\.\d+){3}$/.test(host);
}

/** `scheme://user:password@host/path` becomes `scheme://host/path`; the rest stays as it is. */
function withoutUserInfo(url) {
  const found = /^([^/?\\]*:\/\/)([^/?\\]*)(.*)$/s.exec(url);
  return found ? found[1] + found[2].slice(found[2].lastIndexOf('@') + 1) + found[3] : url;
}

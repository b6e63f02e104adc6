// An agent's client of a Conexus gateway, for browsers and Node 20 or newer. No dependencies.
//
// `Client` connects an `Identity` to a gateway; `client.connectPeer` connects two agents directly. README.md
// has a first program, docs/client-js.md the guide, types/ the types.

export { Client } from './client.js';
export {
  ChannelError,
  ConexusError,
  ConnectError,
  ConnectionLost,
  CryptoUnavailable,
  DidError,
  HandlerFailed,
  KeyError,
  Malformed,
  PeerError,
  Refused,
  RequestError,
  SendError,
  Unverified,
} from './errors.js';
export { Channel } from './peer/channel.js';
export { Peer } from './peer/peer.js';
export { canonicalize } from './protocol/canonicalize.js';
export { didOf, isSameAgent, keyOf, legacyDidOf } from './protocol/did.js';
export { Message, signMessage } from './protocol/envelope.js';
export { Identity } from './protocol/identity.js';
export { RULES } from './protocol/schema.js';
export { Close } from './signaling/close.js';
export { Session } from './signaling/session.js';
export { Watch } from './signaling/watching.js';

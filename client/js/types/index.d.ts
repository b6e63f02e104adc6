// Types of @conexus/client: what src/index.js exports, and nothing else.

export * from './client.js';
export * from './errors.js';
export * from './identity.js';
export * from './message.js';
export * from './peer.js';

// How connections to other agents came out, told to the gateway for its operators' counts: only where the
// application wants that (`reportOutcomes`), and never to whom.
//
// docs/ice.md has the route (POST /ice/outcome) and the token. A report that cannot be told is left at that.

import { toBase64Url, utf8, fromBase64 } from '../protocol/bytes.js';

/** In seconds: long enough for one request. */
const TOKEN_LIFETIME = 60;
/** No gateway takes longer ones. */
const LONGEST = 600_000;
const KINDS = new Set(['host', 'srflx', 'prflx', 'relay']);
const PROTOCOLS = new Set(['udp', 'tcp']);

/** Tells that a way was found (`pair` as in a peer's stats) or, with null, that none was, after `millis`. */
export async function reportOutcome({ identity, endpoint, requestTimeout, now }, pair, millis) {
  const outcome = outcomeOf(pair, millis);
  if (outcome === null) return;
  const { audience } = endpoint;
  try {
    const answer = await fetch(routeBeside(audience), {
      method: 'POST',
      headers: {
        Authorization: `Bearer ${await agentToken(identity, audience, now())}`,
        'Content-Type': 'application/json',
      },
      body: JSON.stringify(outcome),
      credentials: 'omit',
      signal: AbortSignal.timeout(requestTimeout),
    });
    await answer.body?.cancel();
  } catch {
    // Nobody asked for it but the operator.
  }
}

/** The body of a report; null where an engine does not say what it takes. */
export function outcomeOf(pair, millis) {
  const duration = Math.min(Math.max(Math.trunc(millis), 0), LONGEST);
  if (pair === null) return { outcome: 'failed', duration_ms: duration };
  const { local, remote, protocol: transport } = pair;
  if (!KINDS.has(local) || !KINDS.has(remote) || !PROTOCOLS.has(transport)) return null;
  return { outcome: 'connected', local, remote, transport, duration_ms: duration };
}

/** The route in the WebSocket's folder. */
export function routeBeside(audience) {
  const url = new URL(audience.replace(/^ws/i, 'http'));
  url.search = '';
  return new URL('ice/outcome', url).href;
}

/** A JWT of the agent's own (RFC 7519, 8037): who asks over HTTP. */
export async function agentToken(identity, audience, millis) {
  const iat = Math.floor(millis / 1000);
  const claims = { iss: identity.did, aud: audience, iat, exp: iat + TOKEN_LIFETIME };
  const parts = [{ alg: 'EdDSA', typ: 'JWT' }, claims];
  const signed = parts.map((part) => toBase64Url(utf8(JSON.stringify(part)))).join('.');
  return `${signed}.${toBase64Url(fromBase64(await identity.sign(utf8(signed))))}`;
}

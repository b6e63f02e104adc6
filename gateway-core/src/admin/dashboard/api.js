// Requests to the admin API, with the token that this tab was given.
//
// The token lives in sessionStorage: it ends with the tab, and no cookie ever carries it, so no
// other site can make the browser use it.

const KEY = 'conexus.token';
/** What takes longer to read will not come. */
const READ_WITHIN_MS = 15_000;

let asking = null;
let askForToken = () => Promise.reject(new Error('nobody to ask'));

/** Who asks the operator for a token: `(refused) => Promise`, fulfilled once one was entered. */
export function onTokenNeeded(ask) {
  askForToken = ask;
}

export const setToken = (token) => sessionStorage.setItem(KEY, token);
export const hasToken = () => sessionStorage.getItem(KEY) !== null;
export const forgetToken = () => sessionStorage.removeItem(KEY);

/** What the gateway answered that is not what was asked for; `status` 0 when nothing answered. */
export class ApiError extends Error {
  constructor(status, message, reasons = []) {
    super(message);
    this.status = status;
    this.reasons = reasons;
  }
}

const noAnswer = () => new ApiError(0, 'the gateway does not answer');

/**
 * A response, whatever it takes: asks for a token when one is needed, and then tries again.
 * `within` limits each attempt, not the time that somebody takes to enter a token.
 */
export async function request(path, { within = null, ...options } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const signal = AbortSignal.any([options.signal, within && AbortSignal.timeout(within)].filter(Boolean));
    const headers = { ...options.headers, ...(token && { authorization: `Bearer ${token}` }) };
    let response;
    try {
      response = await fetch(path, { ...options, signal, headers, cache: 'no-store' });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw noAnswer();
    }
    if (response.status !== 401) return response;
    // Many requests may fail at once; the operator is asked once.
    if (token === sessionStorage.getItem(KEY)) {
      asking ??= askForToken(token !== null).finally(() => { asking = null; });
      await asking;
    }
  }
}

async function send(method, path, body, limits) {
  const options = { method, ...limits };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { 'content-type': 'application/json' };
  }
  const response = await request(path, options);
  const json = await response.json().catch(unreadable);
  if (response.ok) return json;
  const reasons = Array.isArray(json?.reasons) ? json.reasons : [];
  throw new ApiError(response.status, json?.error ?? `status ${response.status}`, reasons);
}

/** Some answers have no body, and an error may come from something in between. */
function unreadable(error) {
  if (error.name === 'TimeoutError') throw noAnswer();
  return null;
}

/** `query` leaves out what is empty. */
export function get(path, query = {}, signal) {
  const filled = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== '');
  const text = new URLSearchParams(filled).toString();
  return send('GET', text ? `${path}?${text}` : path, undefined, { signal, within: READ_WITHIN_MS });
}

export const post = (path, body) => send('POST', path, body);
export const put = (path, body) => send('PUT', path, body);
export const remove = (path) => send('DELETE', path);

/** The path of one agent. */
export const agentPath = (did) => `/api/v1/agents/${encodeURIComponent(did)}`;

// Who looks, and whether the page holds still.

import { get } from './api.js';

let known = false;
let who = { name: null, scopes: [], tokens_required: false };
let pausedSince = null;
const listeners = new Set();

/** Called when the page is paused or goes on. */
export const onPause = (listener) => listeners.add(listener);

/** When the operator paused the page; `null` while it goes on. */
export const paused = () => pausedSince;

export function togglePause() {
  pausedSince = pausedSince === null ? Date.now() : null;
  listeners.forEach((listener) => listener());
}

export async function learnWho() {
  who = await get('/api/v1/whoami');
  known = true;
}

/** Whether the gateway has said who looks. */
export const knowsWho = () => known;

export const whoAmI = () => who;

export const mayOperate = () => who.scopes.includes('operate');

/** Why a button does nothing. */
export const WHY_NOT = 'Your token may only read; this needs the scope “operate”.';

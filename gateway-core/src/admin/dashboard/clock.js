// The gateway's clock, and times on the page that tell how long ago they are.
//
// "Since when" is the gateway's to say; a laptop whose clock is off must not change the answer.

import { h, setText } from './dom.js';
import { duration, fullTime, shortTime } from './format.js';

let ahead = 0;

/** The gateway said that it is now this late. */
export function observe(atMs) {
  const off = atMs - Date.now();
  // Below this it is the way here, not the clock.
  ahead = Math.abs(off) > 2000 ? off : 0;
}

/** Now, by the gateway's clock. */
export const now = () => Date.now() + ahead;

function words(time) {
  const ms = Number(time.dataset.ms);
  const passed = now() - ms;
  if (time.dataset.as === 'until') return passed >= 0 ? 'over' : `in ${duration(-passed)}`;
  if (time.dataset.as === 'for') return duration(passed);
  return passed < 1000 ? 'just now' : `${duration(passed)} ago`;
}

function relative(ms, as) {
  const time = h('time', { datetime: stamp(ms), title: fullTime(ms), 'data-ms': ms, 'data-as': as });
  time.textContent = words(time);
  return time;
}

const stamp = (ms) => {
  const at = new Date(ms);
  return Number.isNaN(at.getTime()) ? null : at.toISOString();
};

/** "12 s ago", kept true by `tick`. */
export const ago = (ms) => relative(ms, 'ago');

/** "in 12 s". */
export const until = (ms) => relative(ms, 'until');

/** "12 s", of what goes on. */
export const lasting = (ms) => relative(ms, 'for');

/** 23:52:07. */
export const at = (ms) => h('time', { datetime: stamp(ms), title: fullTime(ms) }, shortTime(ms));

/** Once a second. */
export function tick() {
  for (const time of document.querySelectorAll('time[data-ms]')) setText(time, words(time));
}

// Numbers, sizes, times and names as people read them. Pure.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const NONE = '–';

export const count = (n) => (Number.isFinite(n) ? whole.format(n) : NONE);

/** Three significant digits at most, so that a changing number keeps its width. */
export function decimal(n) {
  if (!Number.isFinite(n)) return NONE;
  const size = Math.abs(n);
  if (size >= 100 || n === 0) return whole.format(n);
  return n.toFixed(size >= 10 ? 1 : 2);
}

export const rate = (n) => (Number.isFinite(n) ? `${decimal(n)}/s` : NONE);

/** Axis labels: 1.5k, 20k, 3M. */
export function compact(n) {
  for (const [size, letter] of [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (Math.abs(n) >= size) return `${+(n / size).toFixed(1)}${letter}`;
  }
  return String(+n.toFixed(2));
}

export function bytes(n) {
  if (!Number.isFinite(n)) return NONE;
  let unit = 0;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${unit ? decimal(n) : whole.format(n)} ${units[unit]}`;
}

/** Above a day, microseconds are the gateway's "no bound". */
export function micros(n) {
  if (!Number.isFinite(n)) return NONE;
  if (n > 86_400e6) return '> 1 s';
  if (n < 1000) return `${whole.format(n)} µs`;
  return n < 1e6 ? `${decimal(n / 1e3)} ms` : `${decimal(n / 1e6)} s`;
}

/** Axis labels: 50 ms. */
export function microsShort(n) {
  const [value, unit] = n < 1e3 ? [n, 'µs'] : n < 1e6 ? [n / 1e3, 'ms'] : [n / 1e6, 's'];
  return `${+value.toFixed(1)} ${unit}`;
}

/** Axis labels: 50 MiB. */
export const bytesShort = (n) => (n >= 2 ** 30 ? `${+(n / 2 ** 30).toFixed(2)} GiB` : `${+(n / 2 ** 20).toFixed(1)} MiB`);

/** The two largest units: 3 d 4 h, 5 min 10 s. */
export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const parts = [
    [Math.floor(seconds / 86400), 'd'], [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'min'], [seconds % 60, 's'],
  ];
  const first = parts.findIndex(([n]) => n > 0);
  if (first < 0) return '0 s';
  // Next to hours, seconds are noise.
  return parts.slice(first, first + 2).filter(([n]) => n > 0).map(([n, unit]) => `${n} ${unit}`).join(' ');
}

const pad = (n) => String(n).padStart(2, '0');

/** 23:52:07, local. */
export function clockTime(ms) {
  const at = new Date(ms);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
}

/** With the date when it is not today's. */
export function shortTime(ms) {
  const at = new Date(ms);
  const today = new Date().toDateString() === at.toDateString();
  return today ? clockTime(ms) : `${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${clockTime(ms)}`;
}

/** Complete, and with the same moment in UTC, which logs have. */
export function fullTime(ms) {
  const at = new Date(ms);
  if (Number.isNaN(at.getTime())) return NONE;
  const date = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  return `${date} ${clockTime(ms)} here, ${at.toISOString()}`;
}

/** Long names, shortened in the middle: agents differ in their ends. */
export function shorten(text, head = 12, tail = 6) {
  const letters = [...text];
  if (letters.length <= head + tail + 1) return text;
  return `${letters.slice(0, head).join('')}…${letters.slice(-tail).join('')}`;
}

/** A DID without what all have in common. */
export function shortDid(did) {
  const key = did.startsWith('did:key:') ? did.slice('did:key:'.length) : did;
  return shorten(key, 8, 6);
}

/** `left` of 1 agent, `agents` of more. */
export const plural = (n, one, more = `${one}s`) => `${count(n)} ${n === 1 ? one : more}`;

// What is known of the gateway at this moment, and how fresh it is.
//
// One stream serves the whole page. What arrives is kept here; the pages draw from it, once a
// second at most. While the tab is hidden nobody looks, so nothing is asked for.

import { get } from './api.js';
import { observe } from './clock.js';
import { Stream } from './stream.js';

const POINTS = 600;
const COLUMNS = ['received', 'delivered', 'refused', 'p50_us', 'p99_us', 'agents', 'cpu', 'rss_bytes'];

const listeners = new Set();
let topics = [];
let agent = null;
/** Counts the pages: what an earlier one asked for is not the present one's. */
let missed = 0;

export const live = {
  /** The last Overview; `null` before the first. */
  overview: null,
  /** The last ten minutes, a column per measure. */
  series: emptySeries(),
  /** `connecting`, `up` or `down`. */
  link: 'connecting',
  /** When the link went down, by this machine's clock. */
  downSince: null,
  why: '',
  retryAt: 0,
  /** When the link came up, by this machine's clock. */
  upAt: 0,
  /** When the overview last came, by this machine's clock. */
  heardAt: null,
};

/** `listen({ topic, data })` for what comes; `{ topic: 'link' }` when the link changes. */
export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const tell = (topic, data) => listeners.forEach((listener) => listener({ topic, data }));

const stream = new Stream((said) => {
  if (said.kind === 'up') setLink('up');
  else if (said.kind === 'down') setLink('down', said);
  else receive(said.topic, said.data);
});

function setLink(link, { why = '', retryAt = 0 } = {}) {
  const was = live.link;
  Object.assign(live, { link, why, retryAt });
  if (link === 'down') live.downSince ??= live.heardAt ?? Date.now();
  else live.downSince = null;
  if (link === 'up') live.upAt = Date.now();
  // After a gap the columns have a hole; the gateway remembers what they missed.
  if (link === 'up' && was === 'down') loadSeries();
  tell('link', live.link);
}

function receive(topic, data) {
  if (topic === 'overview') {
    live.overview = data;
    live.heardAt = Date.now();
    observe(data.at_ms);
    append(data);
  }
  if (topic === 'lagged') missed += data.missed ?? 0;
  tell(topic, data);
}

/** How many events this page was too slow for. */
export const missedEvents = () => missed;

function emptySeries() {
  return { at_ms: [], ...Object.fromEntries(COLUMNS.map((column) => [column, []])) };
}

function append(now) {
  const { series } = live;
  if (now.at_ms <= (series.at_ms.at(-1) ?? 0)) return;
  const values = {
    ...now.rates,
    p50_us: now.latency_us?.p50 ?? null,
    p99_us: now.latency_us?.p99 ?? null,
    agents: now.agents,
    cpu: now.process?.cpu ?? null,
    rss_bytes: now.process?.rss_bytes ?? null,
  };
  series.at_ms.push(now.at_ms);
  COLUMNS.forEach((column) => series[column].push(values[column] ?? null));
  const excess = series.at_ms.length - POINTS;
  if (excess > 0) Object.values(series).forEach((column) => column.splice(0, excess));
}

/** What happened before this page was opened. */
export async function loadSeries() {
  const { now, series } = await get('/api/v1/overview');
  const kept = emptySeries();
  kept.at_ms = series.at_ms.slice(-POINTS);
  for (const column of COLUMNS) {
    const values = series[column]?.slice(-POINTS) ?? [];
    kept[column] = kept.at_ms.map((_, index) => values[index] ?? null);
  }
  live.series = kept;
  live.overview = now;
  live.heardAt = Date.now();
  observe(now.at_ms);
  append(now);
  tell('overview', now);
}

/** What the present page wants to hear of, beside the overview. */
export function follow(wanted, about = null) {
  const next = [...new Set(['overview', 'reload', ...wanted])];
  const same = next.join() === topics.join() && about === agent && live.link === 'up';
  topics = next;
  agent = about;
  missed = 0;
  if (!same && !document.hidden) stream.open(topics, agent);
}

export const retryNow = () => stream.retryNow();

document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    stream.close();
    return;
  }
  setLink('connecting');
  loadSeries().catch(() => {});
  if (topics.length) stream.open(topics, agent);
});

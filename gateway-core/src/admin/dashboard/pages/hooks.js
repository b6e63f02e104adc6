// Hooks: what judges, how it does, and the handles: a hook's mode, reload, rollback.

import { get, post } from '../api.js';
import { ago } from '../clock.js';
import { ask } from '../dialog.js';
import { fill, h, refill } from '../dom.js';
import { bytes, count, micros, plural } from '../format.js';
import { icon } from '../icons.js';
import { attempt, badge, copyButton, empty, facts, foreign, heading, operateButton, operateNote, panel, reasonList } from '../parts.js';
import { Table } from '../table.js';
import { changeMode } from './mode.js';

const REFRESH_SECONDS = 2;

export function hooksPage(view, query, pointedAt) {
  const said = h('div');
  const generations = h('div');
  const refusal = h('div');
  const chains = h('div.stack');
  const rest = h('div');
  const counters = new Table({ label: "Hooks' own counters", columns: COUNTERS, key: ({ instance, name }) => `${instance} ${name}`, none: 'They count nothing.' });
  const tables = new Map();
  let latest = null;
  const load = () => view.load(chains, (signal) => get('/api/v1/hooks', {}, signal), show);
  // Buttons outlive the row they were drawn from; what is asked before a change is asked of the latest.
  const change = ({ point, hook }) => {
    const row = latest.chains[point]?.find((other) => other.hook === hook);
    if (row) changeMode({ ...row, point }, latest.chains, said, load);
  };
  const show = (status) => {
    latest = status;
    refill(generations, [status.generation, status.former, status.alive], () => about(status));
    refill(refusal, status.refusal, () => refused(status.refusal));
    showChains(chains, tables, status.chains, pointedAt, change);
    refill(rest, [status.pool, status.chores, status.deferred, status.observers_dropped, status.decisions_dropped, status.state], () => machinery(status));
    counters.show(status.metrics ?? []);
  };
  view.root.append(heading('Hooks'), said,
    panel('Generation', generations, h('div.handles', {},
      operateButton('Reload', () => reload(said, load), 'primary'),
      operateButton('Roll back …', () => rollBack(said, load))), operateNote() ?? '', refusal),
    chains,
    h('div.pair', {}, panel('Threads and state', rest), panel("Hooks' own counters", counters.element)));
  view.hear({ reload: load }, { again: load });
  load();
  view.every(REFRESH_SECONDS, load);
}

function about({ generation, former, alive }) {
  const files = generation.files.map(({ path, sha256 }) => h('li', {}, h('code', { title: path }, foreign(path, 60)), ' ', h('code.soft', { title: sha256 }, sha256.slice(0, 12)), copyButton(sha256, 'hash')));
  return facts([
    ['Judges now', h('span', {}, h('strong.generation', {}, `generation ${generation.number}`), ', built ', ago(generation.since_ms))],
    ['Rolls back to', former ? h('span', {}, `generation ${former.number}, built `, ago(former.since_ms)) : 'nothing yet'],
    ['Alive', plural(alive, 'generation')],
    ['Made from', files.length ? h('ul.files', {}, files) : 'the configuration alone'],
  ]);
}

function refused(refusal) {
  if (!refusal) return null;
  return h('div.note.warning', {}, icon('warning'), h('div', {}, h('strong', {}, 'The last candidate was refused '), ago(refusal.at_ms), '; nothing has changed.', reasonList(refusal.reasons)));
}

async function reload(said, load) {
  const done = await attempt(said, () => post('/api/v1/reload'), ({ generation, needs_restart: restart }) => {
    const later = restart?.length ? ` These take a restart: ${restart.join(', ')}.` : '';
    return `Generation ${generation} runs.${later}`;
  });
  load();
  return done;
}

async function rollBack(said, load) {
  const answer = await ask({ title: 'Roll back?', action: 'Roll back', text: 'The former generation judges again, as it was built. The files stay as they are: the next reload builds from them.' });
  if (answer) await attempt(said, () => post('/api/v1/rollback'), ({ generation }) => `Generation ${generation} runs.`);
  load();
}

/** A table for each point; one that stays is kept, so that its buttons keep the focus. */
function showChains(place, tables, chains, pointedAt, change) {
  const points = Object.keys(chains);
  if (!points.length) {
    tables.clear();
    fill(place, empty('No hook is configured: everything valid passes.'));
    return;
  }
  const same = points.join() === [...tables.keys()].join();
  if (!same) tables.clear();
  for (const point of points) {
    if (!tables.has(point)) tables.set(point, new Table({ label: `Hooks at ${point}`, columns: hookColumns(change), key: ({ hook }) => hook, rowClass: ({ hook }) => (hook === pointedAt ? 'pointed' : '') }));
    tables.get(point).show(chains[point].map((hook, index) => ({ ...hook, point, order: index + 1 })));
  }
  if (!same || !place.querySelector('table')) fill(place, points.map((point) => h('div.of-hooks', {}, panel(point, tables.get(point).element))));
}

const MODES = { enforce: 'fine', shadow: 'warning', off: 'quiet' };
const BREAKERS = { closed: ['asked', 'fine'], open: ['quarantined', 'critical'], half_open: ['on trial', 'warning'] };
const faults = ({ counts }) => Object.entries(counts.faults).map(([kind, n]) => `${kind.replaceAll('_', ' ')} ${count(n)}`).join(', ');
/** Without "continue", which is all that the numbers leave of the calls. */
const verdicts = ({ counts }) => Object.entries(counts.verdicts).filter(([verdict, n]) => n && verdict !== 'continue').map(([verdict, n]) => `${verdict} ${count(n)}`).join(', ');

const hookColumns = (change) => [
  { label: 'Hook', wide: true, value: ({ hook, source, order }) => [hook, source, order].join(), cell: ({ hook, source, order }) => h('span', {}, h('span.soft', {}, `${order}. `), h('strong', {}, foreign(hook)), h('span.below.soft', {}, foreign(source))) },
  { label: 'Mode', value: ({ mode, configured_mode: written }) => [mode, written].join(),
    cell: (row) => h('span', {}, h('span.mode', {}, badge(row.mode, MODES[row.mode]), operateButton('Change …', () => change(row), 'quiet')), row.configured_mode && h('span.below', {}, badge(`configuration says ${row.configured_mode}`, 'warning'))) },
  { label: 'Breaker', value: ({ breaker, on_error: what, budget_ms: budget }) => [breaker, what, budget].join(),
    cell: ({ breaker, on_error: what, budget_ms: budget }) => h('span', { title: 'What a failure means, and how long a call may take' }, badge(...(BREAKERS[breaker] ?? [breaker])), h('span.below.soft', {}, `fails ${what}, ${count(budget)} ms`)) },
  { label: 'Calls', numeric: true, value: ({ counts }) => count(counts.calls) },
  { label: 'p50', numeric: true, value: ({ counts }) => bound(counts.calls, counts.p50_us) },
  { label: 'p99', numeric: true, value: ({ counts }) => bound(counts.calls, counts.p99_us) },
  { label: 'Verdicts', wide: true, value: verdicts, cell: (row) => verdicts(row) || (row.counts.calls ? h('span.soft', {}, 'continue') : '–') },
  { label: 'Errors', wide: true, value: faults, cell: (row) => (faults(row) ? h('span.bad', {}, faults(row)) : '0') },
  { label: 'Mismatches', numeric: true, value: ({ counts }) => (counts.mismatches === undefined ? '–' : count(counts.mismatches)) },
];

/** The gateway gives the upper bound of a bucket. */
const bound = (calls, us) => (calls ? `≤ ${micros(us)}`.replace('≤ >', '>') : '–');

function machinery({ pool, chores, deferred, observers_dropped: unheard, decisions_dropped: unwritten, state }) {
  const threads = (use) => h('span', {}, `${use.threads} at work or ready, ${count(use.waiting)} waiting`, use.lost > 0 && [' ', badge(`${use.lost} lost`, 'critical')]);
  const dropped = (n) => (n > 0 ? badge(count(n), 'warning') : '0');
  return facts([
    ['Calls that block', threads(pool)],
    ['Ticks and timers', threads(chores)],
    ['Verdicts put off', count(deferred)],
    ['Observers not told', dropped(unheard)],
    ['Decisions not recorded', dropped(unwritten)],
    ['State', `${count(state.entries)} entries, ${bytes(state.bytes)}`],
    ['State refused as full', dropped(state.refusals)],
  ]);
}

const COUNTERS = [
  { label: 'Hook', value: ({ instance }) => instance, cell: ({ instance }) => foreign(instance) },
  { label: 'Counter', value: ({ name }) => name, cell: ({ name }) => foreign(name) },
  { label: 'Value', numeric: true, value: ({ value }) => count(value) },
];

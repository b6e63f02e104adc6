// Decisions: what the hooks were asked, what each said, and what it came to.

import { get } from '../api.js';
import { at } from '../clock.js';
import { fill, h, setText } from '../dom.js';
import { plural } from '../format.js';
import { missedEvents } from '../live.js';
import { agentLink, badge, choice, copyButton, empty, foreign, heading, searchBox } from '../parts.js';
import { Recent } from '../recent.js';
import { keep } from '../router.js';

const MOST = 200;
const POINTS = ['on_connect', 'on_register', 'on_route', 'on_undeliverable', 'on_watch', 'on_expire'];
const RULINGS = ['pass', 'deny', 'redirect', 'hold', 'copy', 'extend', 'label', 'rate_class', 'metadata', 'shadow', 'told'];
const FILTERS = ['agent', 'hook', 'point', 'ruling'];

export function decisionsPage(view, query) {
  const filter = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? '']));
  const decisions = new Recent(MOST);
  let skipped = 0;
  let madeUp = 0;
  const note = h('p.soft');
  const list = h('ol.decisions', { 'aria-label': 'Decisions, newest first' });
  const place = h('div', {}, list);
  const lines = new Map();
  const load = () => {
    const missed = missedEvents();
    return view.load(place, (signal) => get('/api/v1/decisions', { ...filter, limit: MOST }, signal), (loaded) => {
      decisions.load(loaded.decisions);
      skipped = loaded.skipped ?? 0;
      // What this page was too slow for until it asked is in the answer.
      madeUp = missed;
      if (!list.isConnected) fill(place, list);
      view.touch();
    }, JSON.stringify(filter));
  };
  const changed = (change) => {
    Object.assign(filter, change);
    keep(['decisions'], filter);
    load();
  };
  view.root.append(heading('Decisions', note),
    h('div.tools', {},
      searchBox('The DID of an agent', filter.agent, (agent) => changed({ agent }), true),
      textFilter('Hook', filter.hook, (hook) => changed({ hook })),
      choice('Point', [['', 'all points'], ...POINTS.map((point) => [point, point])], filter.point, (point) => changed({ point })),
      choice('Ruling', [['', 'all rulings'], ...RULINGS.map((ruling) => [ruling, ruling.replace('_', ' ')])], filter.ruling, (ruling) => changed({ ruling }))),
    h('p.soft', {}, 'What is worth seeing: all but a plain pass, failures of hooks, and what a hook in shadow would have changed.'),
    place);
  view.hear({
    decision: (decision) => {
      if (!fits(decision, filter)) return;
      // DIDs have two spellings, and only the gateway knows both.
      if (filter.agent && ![decision.agent, decision.to].includes(filter.agent)) view.fallBehind();
      else decisions.add(decision);
    },
  }, { again: load });
  view.draw(() => {
    const { rows } = decisions;
    show(list, lines, rows);
    const missed = skipped + missedEvents() - madeUp;
    setText(note, `The last ${plural(rows.length, 'decision')} that fit${missed ? `; ${plural(missed, 'decision')} were too many to keep` : ''}`);
  });
  load();
}

/** As the gateway filters what it remembers, but for the agent. */
function fits({ point, ruling, steps }, filter) {
  return (!filter.hook || steps.some(({ hook }) => hook === filter.hook))
    && (!filter.point || point === filter.point)
    && (!filter.ruling || verdict(ruling) === filter.ruling);
}

function textFilter(label, value, changed) {
  const input = h('input', { type: 'text', value, autocomplete: 'off', spellcheck: 'false', onchange: () => changed(input.value.trim()) });
  return h('label.field', {}, h('span', {}, label), input);
}

/** Lines are kept: one that somebody has opened stays open. */
function show(list, lines, decisions) {
  const wanted = new Set(decisions.map(({ key }) => key));
  for (const [key, line] of lines) {
    if (wanted.has(key)) continue;
    line.remove();
    lines.delete(key);
  }
  list.querySelector('.empty')?.remove();
  if (!decisions.length) list.append(h('li.empty', {}, 'No decision fits.'));
  decisions.forEach((decision, index) => {
    const { key } = decision;
    if (!lines.has(key)) lines.set(key, line(decision));
    if (list.children[index] !== lines.get(key)) list.insertBefore(lines.get(key), list.children[index] ?? null);
  });
}

const verdict = (ruling) => ruling.split(/[^A-Za-z0-9_]/)[0];
const TONES = { deny: 'critical', pass: 'fine' };

function line(decision) {
  const { at_ms: ms, point, agent, to, type, ruling, steps } = decision;
  const word = verdict(ruling);
  const rest = ruling.slice(word.length).replace(/^[: ]+/, '');
  const failed = steps.some(({ said }) => said.startsWith('error'));
  const differs = steps.some(({ mismatch }) => mismatch);
  const box = h('details', {},
    h('summary', {}, at(ms), h('code', {}, point), h('span.ruling', {}, badge(word, TONES[word]), rest && foreign(rest, 80), failed && badge('a hook failed', 'warning'), differs && badge('shadow differs', 'warning')),
      h('span.whom.soft', {}, type ? `${type} ` : '', short(agent), to && ' → ', to && short(to))));
  // Most are never opened.
  box.addEventListener('toggle', () => box.append(details(decision)), { once: true });
  return h('li', {}, box);
}

const short = (did) => (did ? h('span', { title: did }, `…${did.slice(-6)}`) : 'nobody yet');

function details({ generation, agent, to, trace, ruling, steps }) {
  return h('div.steps', {},
    h('dl.facts', {}, [['Ruling', foreign(ruling, 200)], ['Agent', agentLink(agent)], ['To', agentLink(to)], ['Generation', String(generation)],
      ['Trace', trace ? h('span.did', {}, h('code', {}, trace), copyButton(trace, 'trace id')) : '–']]
      .map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)))),
    steps.length ? h('ol', {}, steps.map(step)) : empty('No hook had a say.'));
}

function step({ hook, mode, said, micros, mismatch }) {
  return h('li', {}, h('strong', {}, foreign(hook)), badge(mode), h('span.said', {}, foreign(said, 160)), h('span.soft', {}, `${micros} µs`), mismatch && badge('differs from what was done', 'warning'));
}

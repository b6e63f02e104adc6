// Nodes: the gateways that are one, whether they reach each other, and what is done to this one: drain
// it, make it say more.

import { get, post, put } from '../api.js';
import { ALONE, nodeColumns, station } from '../cluster.js';
import { ask } from '../dialog.js';
import { h, refill } from '../dom.js';
import { count } from '../format.js';
import { live } from '../live.js';
import { attempt, heading, operateButton, operateNote, panel } from '../parts.js';
import { mayOperate } from '../state.js';
import { Table } from '../table.js';

/** Leases are renewed every second or so, and are seen to run meanwhile. */
const EVERY_SECONDS = 2;

export function nodesPage(view) {
  const said = h('div');
  const above = station();
  const lonely = h('p.soft', { hidden: true }, ALONE);
  let loaded = { nodes: [], cluster: null };
  const mostAgents = () => Math.max(0, ...loaded.nodes.map(({ agents }) => agents));
  // Two nodes may call themselves the same, which is a problem and must be seen.
  const key = ({ id, member, this: here }) => `${here} ${member} ${id}`;
  let table = null;
  const place = h('div');
  const show = () => {
    // What the stream tells of this node's own place is newer than the list.
    const cluster = live.overview?.cluster ?? loaded.cluster;
    above.show({ cluster }, loaded.nodes);
    lonely.hidden = Boolean(cluster) || !loaded.nodes.length;
  };
  const load = () => view.load(place, (signal) => get('/api/v1/nodes', {}, signal), (answer) => {
    // Whether there is a cluster is known from the first answer on, and does not change.
    table ??= new Table({ label: 'Nodes', columns: nodeColumns(Boolean(answer.cluster), () => loaded.cluster?.lease_ms ?? 0, mostAgents), key, none: 'No node.' });
    if (!table.element.isConnected) place.replaceChildren(table.element);
    loaded = answer;
    table.show(loaded.nodes);
    show();
  });
  const logPlace = h('div');
  const loadLog = () => view.load(logPlace, (signal) => get('/api/v1/log', {}, signal), ({ level }) => {
    // Nothing is taken away from whoever is typing.
    if (!logPlace.querySelector('input:focus')) refill(logPlace, level, () => logLevel(level, said));
  });
  view.root.append(heading('Nodes'), said, above.element, place, lonely, operateNote() ?? '',
    h('div.pair', {}, draining(said, load), panel('Log level', logPlace)));
  view.hear({ overview: () => {}, reload: loadLog }, { again: loadLog });
  view.draw(show);
  load();
  loadLog();
  view.every(EVERY_SECONDS, load);
}

function draining(said, load) {
  const drain = async () => {
    const answer = await ask({
      title: 'Drain this node?', tone: 'danger', action: 'Drain and stop',
      text: [`${count(live.overview?.agents ?? 0)} agents are told to come back elsewhere (1012), spread over a while. No new session is taken, queues are flushed, and then the process ends. This cannot be taken back.`],
    });
    if (answer && await attempt(said, () => post('/api/v1/drain'), () => 'Draining. The process ends once its agents are gone.')) load();
  };
  return panel('Drain', h('p', {}, 'Ends this process in order, as SIGTERM does: not ready, no new sessions, queues flushed, agents sent away.'),
    operateButton('Drain …', drain, 'danger'));
}

function logLevel(level, said) {
  const input = h('input', { type: 'text', value: level, spellcheck: 'false', autocomplete: 'off', disabled: !mayOperate(), 'aria-describedby': 'log-help' });
  const set = () => attempt(said, () => put('/api/v1/log', { level: input.value.trim() }), (answer) => {
    input.value = answer?.level ?? input.value;
    return `The log level is ${input.value}.`;
  });
  const suggestions = ['info', 'debug', 'info,conexus_gateway::session=debug'];
  return h('form', { onsubmit: (event) => { event.preventDefault(); set(); } },
    h('label.field', {}, h('span', {}, 'Level'), input),
    h('div.actions.left', {}, operateButton('Set', set, 'primary'),
      suggestions.map((text) => operateButton(text, () => { input.value = text; input.focus(); }, 'quiet'))),
    h('p.soft', { id: 'log-help' }, 'A level, or levels by module. It holds until the process ends or another is set.'));
}

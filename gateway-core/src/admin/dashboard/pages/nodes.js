// Nodes: the gateway's processes, and what is done to this one: drain it, make it say more.

import { get, post, put } from '../api.js';
import { ago } from '../clock.js';
import { ask } from '../dialog.js';
import { h, refill } from '../dom.js';
import { count, shortDid } from '../format.js';
import { live } from '../live.js';
import { attempt, badge, copyButton, foreign, heading, operateButton, operateNote, panel } from '../parts.js';
import { mayOperate } from '../state.js';
import { Table } from '../table.js';

export function nodesPage(view) {
  const said = h('div');
  const table = new Table({ label: 'Nodes', columns: COLUMNS, key: ({ id }) => id, none: 'No node.' });
  const place = h('div', {}, table.element);
  const load = () => view.load(place, (signal) => get('/api/v1/nodes', {}, signal), ({ nodes }) => {
    if (!table.element.isConnected) place.replaceChildren(table.element);
    table.show(nodes);
  });
  const logPlace = h('div');
  const loadLog = () => view.load(logPlace, (signal) => get('/api/v1/log', {}, signal), ({ level }) => {
    // Nothing is taken away from whoever is typing.
    if (!logPlace.querySelector('input:focus')) refill(logPlace, level, () => logLevel(level, said));
  });
  view.root.append(heading('Nodes'), said, place, operateNote() ?? '',
    h('div.pair', {}, draining(said, load), panel('Log level', logPlace)));
  view.hear({ reload: loadLog }, { again: loadLog });
  load();
  loadLog();
  view.every(5, load);
}

const COLUMNS = [
  { label: 'Node', value: ({ id }) => id, cell: ({ id, this: here }) => h('span', {}, h('strong', {}, foreign(id)), here && [' ', badge('this one')]) },
  { label: 'Phase', value: ({ phase }) => phase, cell: ({ phase }) => badge(phase, phase === 'running' ? 'fine' : 'warning') },
  { label: 'Agents', numeric: true, value: ({ agents }) => count(agents) },
  { label: 'Version', value: ({ version }) => version },
  { label: 'Started', value: ({ started_ms: ms }) => ms, cell: ({ started_ms: ms }) => ago(ms) },
  { label: 'DID', wide: true, value: ({ did }) => did, cell: ({ did }) => h('span.did', {}, h('code', { title: did }, shortDid(did)), copyButton(did, 'DID')) },
];

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

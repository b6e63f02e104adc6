// The cluster: whether this node is part of it, how the engine fares, and who else is there.

import { ago, lasting } from './clock.js';
import { h, refill } from './dom.js';
import { bytes, count, decimal, micros, shortDid } from './format.js';
import { icon } from './icons.js';
import { badge, copyButton, figure, foreign } from './parts.js';

/** What stands above the table of nodes: nothing where the gateway is alone. */
export function station() {
  const apart = h('div', { 'aria-live': 'polite' });
  const numbers = FIGURES.map(figure);
  const figures = h('div.figures', { hidden: true }, numbers.map(({ element }) => element));
  const show = ({ cluster }, nodes) => {
    const said = cluster && !cluster.joined && [cluster.since_ms, cluster.why];
    refill(apart, said || null, () => (said ? banner(cluster) : ''));
    figures.hidden = !cluster;
    if (cluster) numbers.forEach((number) => number.show({ cluster, nodes }));
  };
  return { element: h('div.station', {}, apart, figures), show };
}

function banner({ since_ms: since, why }) {
  return h('div.note.critical', { role: 'alert' }, icon('critical'),
    h('div', {}, h('strong', {}, 'Apart from the cluster for '), lasting(since), h('strong', {}, '. '),
      'Its agents reach each other, and nobody else; it tries to come back by itself. ', h('span.soft', {}, foreign(why, 200))));
}

const FIGURES = [
  ['Reachable nodes', ({ cluster }) => count(cluster.nodes), ({ nodes }) => `of ${count(nodes.length)} known`],
  ['Agents in all', ({ nodes }) => count(sum(nodes, ({ agents }) => agents)), () => 'as the nodes told last'],
  ['Redis, median', ({ cluster }) => micros(cluster.engine_us?.median), ({ cluster }) => `slowest ${micros(cluster.engine_us?.slowest)}`],
  ['Under way', ({ cluster }) => count(cluster.under_way.messages), ({ cluster }) => `${bytes(cluster.under_way.bytes)} unconfirmed`],
  ['Lease', ({ cluster }) => `${decimal(cluster.lease_ms / 1000)} s`, () => 'until a dead node is noticed'],
];

const sum = (nodes, of) => nodes.reduce((total, node) => total + of(node), 0);

/** The columns of the table; where the gateway is alone, without those of a cluster. */
export function nodeColumns(inCluster, leaseMs, mostAgents) {
  return [
    { label: 'Node', value: ({ id, this: here }) => `${id} ${here}`, cell: ({ id, this: here }) => h('span', {}, h('strong', {}, foreign(id)), here && [' ', badge('this one')]) },
    { label: 'State', value: ({ phase, reachable, why_not: why }) => `${phase} ${reachable} ${why}`, cell: state },
    { label: 'Agents', numeric: true, value: ({ agents }) => `${agents} ${mostAgents()}`, cell: ({ agents }) => measured(count(agents), agents, mostAgents(), 'agents') },
    inCluster && { label: 'Lease', numeric: true, value: ({ lease_left_ms: left }) => left ?? -1, cell: ({ lease_left_ms: left }) => lease(left, leaseMs()) },
    inCluster && { label: 'Under way', numeric: true, value: ({ this: here, under_way: { messages, bytes: size } }) => (here ? '–' : `${messages} ${size}`), cell: ({ this: here, under_way: { messages, bytes: size } }) => (here ? '–' : h('span', { title: bytes(size) }, count(messages))) },
    { label: 'Version', value: ({ version }) => version, cell: ({ version }) => foreign(version) },
    { label: 'Started', value: ({ started_ms: ms }) => ms, cell: ({ started_ms: ms }) => ago(ms) },
    inCluster && { label: 'Member', value: ({ member }) => member, cell: ({ member }) => (member ? h('code', {}, foreign(member)) : '–') },
    { label: 'DID', wide: true, value: ({ did }) => did, cell: ({ did }) => h('span.did', {}, h('code', { title: did }, shortDid(did)), copyButton(did, 'DID')) },
  ].filter(Boolean);
}

function state({ phase, reachable, why_not: why }) {
  if (!reachable) return h('span', { title: why }, badge('unreachable', 'critical'), ' ', h('span.soft', {}, foreign(why, 60)));
  return badge(phase, phase === 'running' ? 'fine' : 'warning');
}

function lease(left, whole) {
  if (left === null || left === undefined) return '–';
  return measured(`${decimal(left / 1000)} s`, left, whole, left < whole / 3 ? 'late' : 'lease');
}

/** A number, and how much of the whole it is. The bar only repeats it. */
function measured(text, part, whole, kind) {
  const fill = h(`span.fill.${kind}`);
  fill.style.width = `${whole > 0 ? Math.min(100, (part / whole) * 100) : 0}%`;
  return h('span.measured', {}, h('span', {}, text), h('span.gauge', { 'aria-hidden': 'true' }, fill));
}

/** What is said where the gateway is alone. */
export const ALONE = 'This gateway is alone. Several become one when they share a Redis: cluster.redis.url.';

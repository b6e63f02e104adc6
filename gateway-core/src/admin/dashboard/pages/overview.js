// Overview: how much goes through, how fast, and what became of it.

import { Chart, sample } from '../chart.js';
import { ago } from '../clock.js';
import { h, refill, setText } from '../dom.js';
import { bytes, bytesShort, compact, count, decimal, micros, microsShort, rate } from '../format.js';
import { live } from '../live.js';
import { facts, figure, heading, panel } from '../parts.js';
import { href } from '../router.js';

export function overviewPage(view) {
  const numbers = FIGURES.map(figure);
  const charts = CHARTS.map((chart) => new Chart(chart));
  const account = accounting();
  const process = h('div');
  view.root.append(heading('Overview'),
    h('div.figures', {}, numbers.map(({ element }) => element)),
    h('div.charts', {}, charts.map(({ element }) => element)),
    h('div.pair', {}, account.element, panel('Process and sessions', process)));
  view.hear({ overview: () => {} });
  view.draw(() => {
    const { overview, series } = live;
    if (!overview) return;
    numbers.forEach(({ show }) => show(overview));
    charts.forEach((chart) => chart.show(series));
    account.show(overview);
    refill(process, [overview.node, overview.sessions, overview.process.open_fds, overview.mailbox, overview.cluster?.joined, overview.cluster?.nodes], () => about(overview));
  });
}

const FIGURES = [
  ['Agents', (o) => count(o.agents), (o) => `${count(o.connections)} sockets`, 'agents'],
  ['Received', (o) => rate(o.rates.received), (o) => `${bytes(o.rates.bytes_in)}/s in`],
  ['Delivered', (o) => rate(o.rates.delivered), (o) => `${bytes(o.rates.bytes_out)}/s out`],
  ['Refused', (o) => rate(o.rates.refused), (o) => share(o.rates.refused, o.rates.received), 'decisions'],
  ['Latency p50', (o) => micros(o.latency_us?.p50), (o) => `p90 ${micros(o.latency_us?.p90)}`],
  ['Latency p99', (o) => micros(o.latency_us?.p99), () => 'frame in to out'],
  ['CPU', (o) => decimal(o.process.cpu), () => 'cores'],
  ['Memory', (o) => bytes(o.process.rss_bytes), () => 'resident'],
];

const share = (part, all) => (all > 0 ? `${decimal((part / all) * 100)} % of all` : 'of none');

const CHARTS = [
  { title: 'Messages', unit: 'per second', format: rate, axis: compact, lines: [
    { name: 'received', key: 'received', tone: 'received' },
    { name: 'delivered', key: 'delivered', tone: 'delivered' },
    { name: 'refused', key: 'refused', tone: 'refused' }] },
  { title: 'Latency', unit: 'from frame received to frame written', format: micros, axis: microsShort, scale: 'log', lines: [
    { name: 'p50', key: 'p50_us', tone: 'delivered' },
    { name: 'p99', key: 'p99_us', tone: 'third' }] },
  { title: 'Agents', unit: 'registered', format: count, axis: compact, lines: [{ name: 'agents', key: 'agents', tone: 'received' }] },
  { title: 'CPU', unit: 'cores', format: decimal, axis: compact, step: 0.1, lines: [{ name: 'CPU', key: 'cpu', tone: 'third' }] },
  { title: 'Memory', unit: 'resident', format: bytes, axis: bytesShort, step: 2 ** 20, lines: [{ name: 'RSS', key: 'rss_bytes', tone: 'delivered' }] },
];

/** Every message ends once: what was received is delivered, refused, held, or still on its way. */
function accounting() {
  const parts = ['delivered', 'refused', 'held', 'on its way'].map((name) => ({ name, number: h('dd'), bar: h(`span.part.${name.replaceAll(' ', '-')}`) }));
  const total = h('strong');
  const element = panel('What became of every message',
    h('p.soft', {}, total, ' received since the start'),
    h('div.account-bar', { 'aria-hidden': 'true' }, parts.map(({ bar }) => bar)),
    h('dl.account', {}, parts.map(({ name, number }) => h('div', {}, h('dt', {}, sample(name.replaceAll(' ', '-')), name), number))));
  const show = ({ messages }) => {
    const rest = messages.received - messages.delivered - messages.refused - messages.held;
    const values = [messages.delivered, messages.refused, messages.held, Math.max(0, rest)];
    setText(total, count(messages.received));
    parts.forEach(({ number, bar }, index) => {
      const value = values[index];
      setText(number, messages.received ? `${count(value)} (${decimal((value / messages.received) * 100)} %)` : count(value));
      bar.style.flexGrow = value;
      bar.hidden = !value;
    });
  };
  return { element, show };
}

function about({ node, sessions, process, mailbox, cluster }) {
  return facts([
    ['Node', `${node.id}, version ${node.version}`],
    cluster && ['Cluster', h('a', { href: href(['nodes']) }, cluster.joined ? `joined, ${count(cluster.nodes)} nodes` : 'apart')],
    ['Started', ago(node.started_ms)],
    ['Phase', node.phase],
    ['Policy', h('a', { href: href(['hooks']) }, `generation ${node.generation}`)],
    ...Object.entries(sessions).map(([subprotocol, sessions]) => [subprotocol, `${count(sessions)} sessions`]),
    ['Mailbox', `${count(mailbox.messages)} messages for ${count(mailbox.agents)} agents, ${bytes(mailbox.bytes)}`],
    ['Open files', `${count(process.open_fds)} of ${count(process.max_fds)}`],
  ]);
}

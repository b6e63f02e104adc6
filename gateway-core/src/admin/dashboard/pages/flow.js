// Flow: who signals whom, and what became of it, over the last half minute; as a picture for the
// busiest, and as a table.

import { sample } from '../chart.js';
import { fill, h, setText } from '../dom.js';
import { FlowWindow, OUTCOMES, WINDOW_MS, busiest } from '../flow.js';
import { clockTime, count, plural } from '../format.js';
import { Graph } from '../graph.js';
import { live } from '../live.js';
import { agentLink, heading, panel } from '../parts.js';
import { Table } from '../table.js';

const DRAWN = 24;
const LISTED = 100;
const SPAN = 'the last 30 s';

export function flowPage(view) {
  const window = new FlowWindow();
  const note = h('p.soft');
  const picture = h('div.picture');
  const graph = new Graph(picture);
  const drawn = h('p.soft');
  const table = new Table({ label: 'Pairs', columns: COLUMNS, key: ({ key }) => key, sortable: true, sorted: { label: 'All', descending: true } });
  const pairsTitle = h('p.soft');
  const opened = Date.now();
  view.root.append(heading('Flow', note),
    panel('The busiest agents', h('div.legend', {}, OUTCOMES.map((outcome) => h('span.entry', {}, sample(outcome), outcome)), drawn), picture),
    panel('Pairs', pairsTitle, table.element));
  view.hear({ flow: (batch) => window.add(batch) });
  view.draw(() => {
    const pairs = window.pairs();
    const shown = busiest(pairs, DRAWN);
    const span = heard(Math.max(opened, live.upAt));
    table.none(live.link === 'up' ? `Nobody has signalled anybody ${span === SPAN ? 'in ' : ''}${span}.` : 'This page does not listen at present.');
    fill(note, span[0].toUpperCase() + span.slice(1), window.share < 1 && [', ', h('strong', {}, `sampled: 1 message in ${count(1 / window.share)} is looked at`)]);
    setText(drawn, shown.all > shown.agents.length ? `${shown.agents.length} of ${plural(shown.all, 'agent')}` : plural(shown.all, 'agent'));
    picture.hidden = !pairs.length;
    graph.show(shown);
    setText(pairsTitle, pairs.length > LISTED ? `The busiest ${LISTED} of ${count(pairs.length)} pairs` : plural(pairs.length, 'pair'));
    table.show(pairs.slice(0, LISTED));
  });
}

/** What the picture is of: without the stream nothing is seen, and nothing can be said of then. */
function heard(since) {
  return live.link === 'up' && Date.now() - since >= WINDOW_MS ? SPAN : `since ${clockTime(since)}`;
}

const reasons = ({ reasons: found }) => [...found].map(([reason, n]) => `${reason} ${count(n)}`).join(', ');

const COLUMNS = [
  { label: 'From', value: ({ from }) => from, cell: ({ from }) => agentLink(from) },
  { label: 'To', value: ({ to }) => to, cell: ({ to }) => (to ? agentLink(to) : h('span.soft', {}, 'no agent\'s key')) },
  { label: 'Types', wide: true, value: ({ types }) => [...types].sort().join(', ') },
  { label: 'Delivered', numeric: true, value: ({ delivered }) => delivered, cell: ({ delivered }) => count(delivered) },
  { label: 'Held', numeric: true, value: ({ held }) => held, cell: ({ held }) => count(held) },
  { label: 'Refused', numeric: true, value: ({ refused }) => refused, cell: ({ refused }) => count(refused) },
  { label: 'All', numeric: true, value: ({ total }) => total, cell: ({ total }) => count(total) },
  { label: 'Why refused', wide: true, value: reasons, cell: (pair) => reasons(pair) || '–' },
];

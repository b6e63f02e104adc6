// Audit: what operators did, and what came of it.

import { get } from '../api.js';
import { ago, at } from '../clock.js';
import { h } from '../dom.js';
import { agentLink, badge, foreign, heading } from '../parts.js';
import { Recent } from '../recent.js';
import { Table } from '../table.js';

const MOST = 200;

export function auditPage(view) {
  const entries = new Recent(MOST);
  const table = new Table({ label: 'Audit', columns: COLUMNS, key: ({ key }) => key, none: 'Nobody has done anything.' });
  const place = h('div', {}, table.element);
  const load = () => view.load(place, (signal) => get('/api/v1/audit', { limit: MOST }, signal), (loaded) => {
    if (!table.element.isConnected) place.replaceChildren(table.element);
    entries.load(loaded.entries);
    view.touch();
  });
  view.root.append(heading('Audit'), h('p.soft', {}, 'Every request that changes something, done or refused, newest first.'), place);
  view.hear({ audit: (entry) => entries.add(entry) }, { again: load });
  view.draw(() => table.show(entries.rows));
  load();
}

const COLUMNS = [
  { label: 'When', value: ({ at_ms: ms }) => ms, cell: ({ at_ms: ms }) => h('span.when', {}, at(ms), ' ', h('span.soft', {}, ago(ms))) },
  { label: 'Who', value: ({ who }) => who, cell: ({ who }) => foreign(who) },
  { label: 'Action', value: ({ action }) => action, cell: ({ action }) => h('strong', {}, action) },
  { label: 'On', wide: true, value: ({ target }) => target, cell: ({ target }) => (target?.startsWith('did:') ? agentLink(target) : foreign(target)) },
  { label: 'Detail', wide: true, value: ({ detail }) => detail, cell: ({ detail }) => foreign(detail, 80) },
  { label: 'Outcome', wide: true, value: ({ outcome }) => outcome, cell: ({ outcome }) => told(outcome) },
  { label: 'From', value: ({ peer }) => peer },
];

function told(outcome) {
  if (outcome === 'done') return badge('done', 'fine');
  const [word, why] = outcome.split(/:\s*(.*)/s);
  return h('span', {}, badge(word, word === 'refused' ? 'critical' : 'warning'), ' ', foreign(why, 80));
}

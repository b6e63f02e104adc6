// History: who came, who left and why, who was refused.

import { get } from '../api.js';
import { ago, at } from '../clock.js';
import { h } from '../dom.js';
import { agentLink, badge, choice, heading, searchBox } from '../parts.js';
import { Recent } from '../recent.js';
import { href, keep } from '../router.js';
import { Table } from '../table.js';

const MOST = 200;
const KINDS = ['registered', 'renewed', 'replaced', 'left', 'refused'];
const TONES = { registered: 'fine', refused: 'critical', replaced: 'warning' };
/** Endings that nobody wished for. */
const BAD_ENDS = ['bad_messages', 'too_slow', 'broken', 'denied', 'rate_limited', 'removed'];

export function historyColumns(withAgent = true) {
  return [
    { label: 'When', value: ({ at_ms: ms }) => ms, cell: ({ at_ms: ms }) => h('span.when', {}, at(ms), ' ', h('span.soft', {}, ago(ms))) },
    { label: 'What', value: ({ kind }) => kind, cell: ({ kind }) => badge(kind, TONES[kind]) },
    withAgent && { label: 'Agent', wide: true, value: ({ did }) => did, cell: ({ did }) => agentLink(did) },
    { label: 'Why', value: ({ reason, code }) => [reason, code].join(), cell: ({ reason, code }) => why(reason, code) },
    { label: 'Session', value: ({ session }) => session },
    { label: 'Address', value: ({ address }) => address },
    { label: 'Protocol', value: ({ subprotocol }) => subprotocol },
  ].filter(Boolean);
}

function why(reason, code) {
  if (!reason && !code) return '–';
  return h('span', {}, reason && badge(reason.replaceAll('_', ' '), BAD_ENDS.includes(reason) ? 'critical' : 'quiet'), code ? h('span.soft', {}, ` ${code}`) : null);
}

export function historyPage(view, query) {
  const filter = { agent: query.get('agent') ?? '', kind: query.get('kind') ?? '' };
  const entries = new Recent(MOST);
  const table = new Table({ label: 'History', columns: historyColumns(), key: ({ key }) => key, none: 'Nothing that fits has happened.' });
  const place = h('div', {}, table.element);
  const fits = ({ kind }) => !filter.kind || kind === filter.kind;
  const load = () => view.load(place, (signal) => get('/api/v1/history', { ...filter, limit: MOST }, signal), (loaded) => {
    if (!table.element.isConnected) place.replaceChildren(table.element);
    entries.load(loaded.entries);
    view.touch();
  }, JSON.stringify(filter));
  const changed = (change) => {
    Object.assign(filter, change);
    keep(['history'], filter);
    load();
  };
  view.root.append(heading('History', h('a.beside', { href: href(['agents']) }, 'Who is here now')),
    h('div.tools', {},
      searchBox('The DID of an agent', filter.agent, (agent) => changed({ agent }), true),
      choice('What', [['', 'everything'], ...KINDS.map((kind) => [kind, kind])], filter.kind, (kind) => changed({ kind }))),
    place);
  view.hear({
    session: (entry) => {
      if (!fits(entry)) return;
      // DIDs have two spellings, and only the gateway knows both.
      if (filter.agent && entry.did !== filter.agent) view.fallBehind();
      else entries.add(entry);
    },
  }, { again: load });
  view.draw(() => table.show(entries.rows));
  load();
}

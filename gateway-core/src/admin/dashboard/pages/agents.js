// Agents: who is here, fifty at a time. The gateway searches and pages; never more than a page is
// held, however many there are.

import { get } from '../api.js';
import { ago, lasting } from '../clock.js';
import { h, setText } from '../dom.js';
import { bytes, count, duration, plural } from '../format.js';
import { agentLink, badge, foreign, heading, searchBox } from '../parts.js';
import { keep } from '../router.js';
import { Table } from '../table.js';
import { bansPanel } from './bans.js';

const PAGE = 50;
const REFRESH_SECONDS = 5;

export function agentsPage(view, query) {
  // The cursors of the pages before this one: the gateway only knows the way forward.
  let before = [];
  let cursor = query.get('cursor');
  let search = query.get('search') ?? '';
  let next = null;
  let turning = false;
  const found = h('p.soft', { 'aria-live': 'polite' });
  const table = new Table({ label: 'Agents', columns: COLUMNS, key: ({ did }) => did, none: 'No agent fits.', rowClass: ({ stalled_ms: stalled }) => (stalled ? 'troubled' : '') });
  const back = h('button', { type: 'button', onclick: () => turn(before.at(-1), before.slice(0, -1)) }, 'Previous page');
  const on = h('button', { type: 'button', onclick: () => turn(next, [...before, cursor]) }, 'Next page');
  const place = h('div', {}, table.element);

  const show = (page) => {
    next = page.next_cursor;
    table.show(page.agents);
    const pages = before.length + 1;
    setText(found, page.count > PAGE || pages > 1 ? `${plural(page.count, 'agent')}, page ${pages}` : plural(page.count, 'agent'));
    settle();
  };
  const settle = () => {
    back.disabled = turning || (!before.length && !cursor);
    on.disabled = turning || !next;
  };
  const load = () => view.load(place, (signal) => get('/api/v1/agents', { search, limit: PAGE, cursor }, signal), (page) => {
    if (!table.element.isConnected) place.replaceChildren(table.element);
    show(page);
  }, JSON.stringify([search, cursor]));
  function go(to, trail) {
    before = trail;
    cursor = to ?? null;
    keep(['agents'], { search, cursor });
    return load();
  }
  /** A second click before the answer would turn from the same page again. */
  async function turn(to, trail) {
    const focused = document.activeElement;
    turning = true;
    next = null;
    settle();
    try {
      await go(to, trail);
    } finally {
      turning = false;
      settle();
      // A button that is off loses the focus.
      if ([back, on].includes(focused) && document.activeElement === document.body) focused.focus();
    }
  }
  view.root.append(heading('Agents', found),
    h('div.tools', {}, searchBox('Search DID, name or address', search, (text) => {
      search = text;
      go(null, []);
    })),
    place, h('div.pager', {}, back, on), bansPanel(view));
  view.hear({});
  load();
  view.every(REFRESH_SECONDS, load);
}

const COLUMNS = [
  { label: 'Agent', wide: true, value: ({ did }) => did, cell: ({ did }) => agentLink(did) },
  { label: 'Name', value: ({ name }) => name, cell: ({ name }) => h('span.name', {}, foreign(name, 80)) },
  { label: 'State', value: ({ stalled_ms: stalled }) => (stalled ? `not reading for ${duration(stalled)}` : 'fine'),
    cell: ({ stalled_ms: stalled }) => (stalled ? badge(`not reading for ${duration(stalled)}`, 'critical') : h('span.soft', {}, 'fine')) },
  { label: 'Last heard', value: ({ last_activity_ms: at }) => at, cell: ({ last_activity_ms: at }) => ago(at) },
  { label: 'Connected', value: ({ connected_at_ms: at }) => at, cell: ({ connected_at_ms: at }) => lasting(at) },
  { label: 'Sent', numeric: true, value: ({ sent }) => count(sent) },
  { label: 'Received', numeric: true, value: ({ received }) => count(received) },
  { label: 'Outbox', numeric: true, value: ({ outbox_messages: n, outbox_bytes: size }) => (n ? `${count(n)} · ${bytes(size)}` : '0') },
  { label: 'Address', value: ({ address }) => address },
  { label: 'Protocol', value: ({ subprotocol }) => subprotocol.replace('ioap.', '') },
];

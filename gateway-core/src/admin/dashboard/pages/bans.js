// Who is banned, until when, and the way back; below the agents, since who is banned is not among them.

import { get, remove } from '../api.js';
import { until } from '../clock.js';
import { ask } from '../dialog.js';
import { fill, h } from '../dom.js';
import { agentLink, attempt, foreign, operateButton, panel } from '../parts.js';
import { Table } from '../table.js';

const REFRESH_SECONDS = 10;

/** A part of a page, and how to load it; shown only while somebody is banned. */
export function bansPanel(view) {
  const said = h('div');
  const table = new Table({ label: 'Banned', columns: columns((did) => lift(did, said, load)), key: ({ did }) => did });
  const listed = panel('Banned', table.element);
  const list = h('div');
  const load = () => view.load(list, (signal) => get('/api/v1/bans', {}, signal), ({ bans }) => {
    table.show(bans);
    const wanted = bans.length > 0 ? listed : null;
    if (list.firstChild !== wanted) fill(list, wanted);
  });
  load();
  view.every(REFRESH_SECONDS, load);
  return h('div.stack', {}, said, list);
}

const columns = (act) => [
  { label: 'Agent', wide: true, value: ({ did }) => did, cell: ({ did }) => agentLink(did) },
  { label: 'Ends', value: ({ until_ms: ms }) => ms, cell: ({ until_ms: ms }) => until(ms) },
  { label: 'By', value: ({ by }) => by, cell: ({ by }) => foreign(by) },
  { label: 'Reason', wide: true, value: ({ reason }) => reason, cell: ({ reason }) => foreign(reason, 80) },
  { label: 'Way back', value: () => '', cell: ({ did }) => operateButton('Lift …', () => act(did), 'quiet') },
];

/** Asks, and then lets the agent come back. */
export async function lift(did, said, done) {
  const answer = await ask({ title: 'Lift the ban?', action: 'Lift the ban', text: [h('p', {}, h('code', {}, did)), 'It may register again at once.'] });
  if (answer && await attempt(said, () => remove(`/api/v1/bans/${encodeURIComponent(did)}`), () => 'The ban is lifted.')) done();
}

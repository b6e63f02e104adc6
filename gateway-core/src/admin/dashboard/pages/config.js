// Config: what is in effect, and where each value came from. The gateway hides secrets before they
// get here.

import { get } from '../api.js';
import { h, setText } from '../dom.js';
import { plural } from '../format.js';
import { badge, foreign, heading, searchBox } from '../parts.js';
import { keep } from '../router.js';
import { Table } from '../table.js';

export function configPage(view, query) {
  let rows = [];
  let search = query.get('search') ?? '';
  const found = h('p.soft', { 'aria-live': 'polite' });
  const table = new Table({ label: 'Settings', columns: COLUMNS, key: ({ key }) => key, none: 'No setting fits.', sortable: true });
  const place = h('div', {}, table.element);
  const show = () => {
    const wanted = search.toLowerCase();
    const fitting = rows.filter(({ key, text, origin }) => [key, text, origin].some((part) => part.toLowerCase().includes(wanted)));
    table.show(fitting);
    setText(found, `${plural(fitting.length, 'setting')}, ${fitting.filter(({ origin }) => origin !== 'default').length} not the default`);
  };
  view.root.append(heading('Config', found),
    h('div.tools', {}, searchBox('Search key, value or origin', search, (text) => {
      search = text;
      keep(['config'], { search });
      show();
    })), place);
  const load = () => view.load(place, (signal) => get('/api/v1/config', {}, signal), (config) => {
    rows = Object.entries(config).map(([key, { value, origin }]) => ({ key, origin: String(origin), text: textOf(value) }));
    if (!table.element.isConnected) place.replaceChildren(table.element);
    show();
  });
  view.hear({ reload: load }, { again: load });
  load();
}

/** What is not set has no value, and says so in words. */
function textOf(value) {
  if (value === null || value === '') return 'not set';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

const COLUMNS = [
  { label: 'Setting', wide: true, value: ({ key }) => key, cell: ({ key }) => h('code', {}, foreign(key, 80)) },
  { label: 'Value', wide: true, value: ({ text }) => text, cell: ({ text }) => (text === 'not set' ? h('span.soft', {}, text) : h('code.value', {}, h('bdi', {}, text))) },
  { label: 'From', value: ({ origin }) => origin, cell: ({ origin }) => (origin === 'default' ? h('span.soft', {}, 'default') : badge(origin)) },
];

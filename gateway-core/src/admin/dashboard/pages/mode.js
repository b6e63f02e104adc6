// Changing a hook's mode: what the operator should know before, and what came of it.

import { put } from '../api.js';
import { ask, radios } from '../dialog.js';
import { h } from '../dom.js';
import { plural } from '../format.js';
import { attempt, badge, foreign } from '../parts.js';

const MODES = [
  ['enforce', 'Enforce', 'It is asked, and obeyed.'],
  ['shadow', 'Shadow', 'It is asked; its answer is only counted and compared.'],
  ['off', 'Off', 'It is not asked.'],
];

/** The likely wish: from shadow to earnest, and back out of it. */
const NEXT = { shadow: 'enforce', enforce: 'shadow', off: 'shadow' };

export async function changeMode(row, chains, said, done) {
  const points = Object.keys(chains).filter((point) => chains[point].some(({ hook }) => hook === row.hook));
  const where = points.length > 1 && h('select', {}, [h('option', { value: row.point }, `only at ${row.point}`), h('option', { value: '' }, `at all its points: ${points.join(', ')}`)]);
  const answer = await ask({
    title: `Mode of ${row.hook}`, action: 'Change the mode',
    text: [h('p', {}, foreign(row.hook), ` at ${row.point} is now in `, badge(row.mode), '. ', evidence(row)), 'A new generation is built; the configuration file stays as it is.'],
    fields: [{ name: 'mode', control: radios('mode', MODES, NEXT[row.mode] ?? 'enforce') }, where && { name: 'point', label: 'Where', control: where }].filter(Boolean),
  });
  if (!answer) return;
  const order = { mode: answer.mode };
  const point = where ? answer.point : row.point;
  if (point) order.point = point;
  await attempt(said, () => put(`/api/v1/hooks/${encodeURIComponent(row.hook)}/mode`, order),
    ({ generation, note }) => `${row.hook} is in ${answer.mode} since generation ${generation}. ${note ?? ''}`);
  done();
}

/** What its time in shadow has shown. */
function evidence({ mode, counts }) {
  if (mode !== 'shadow' || counts.mismatches === undefined) return '';
  if (!counts.calls) return 'It has not been asked yet, so nothing is known of what it would do.';
  return h('strong', {}, `In ${plural(counts.calls, 'call')} it would have decided otherwise ${plural(counts.mismatches, 'time')}.`);
}

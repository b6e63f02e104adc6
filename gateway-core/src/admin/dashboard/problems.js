// What is wrong right now, at the top of every page: how bad, what, since when, and the way to the
// handle.

import { ago } from './clock.js';
import { fill, h, setText } from './dom.js';
import { clockTime, plural, shortDid } from './format.js';
import { icon } from './icons.js';
import { announce } from './parts.js';
import { ownLink } from './router.js';

/** More than these would push the page out of sight; the rest is one click away. */
const AT_ONCE = 3;
const WORDS = { critical: 'Critical', warning: 'Warning' };

const section = () => document.getElementById('problems');
let shown = null;
let all = false;
let problems = [];

/** Shows an Overview's problems; `null` while nothing is known. */
export function showProblems(overview) {
  if (!overview) {
    if (shown !== 'unknown') fill(section(), h('p.calm.unknown', {}, 'Asking the gateway …'));
    shown = 'unknown';
    return;
  }
  problems = [...overview.problems].sort((a, b) => weight(b) - weight(a) || b.since_ms - a.since_ms);
  const state = JSON.stringify(problems.map(({ kind, subject, text, severity }) => [kind, subject, text, severity]));
  // Texts count up while a problem lasts; what is announced is that it came or went.
  const news = problems.map(({ kind, subject }) => `${kind} ${subject}`).join('\n');
  if (state !== shown) draw(overview);
  if (section().dataset.news !== news) tell();
  section().dataset.news = news;
  shown = state;
  const checked = section().querySelector('.checked');
  if (checked) setText(checked, `as of ${clockTime(overview.at_ms)}`);
}

const weight = ({ severity }) => (severity === 'critical' ? 1 : 0);

function tell() {
  if (!problems.length) return announce('Nothing is wrong.');
  const critical = problems.filter(weight).length;
  const first = problems[0];
  return announce(`${plural(problems.length, 'problem')}, ${critical} critical. First: ${first.subject} ${first.text}`);
}

function draw(overview) {
  // A redraw must not take the focus from whoever is on a link here.
  const focused = [...section().querySelectorAll('a, button')].indexOf(document.activeElement);
  if (!problems.length) {
    fill(section(), h('p.calm', {}, icon('fine'), h('strong', {}, 'Nothing is wrong.'), h('span.checked.soft', {}, `as of ${clockTime(overview.at_ms)}`)));
    return;
  }
  const some = all ? problems : problems.slice(0, AT_ONCE);
  const more = problems.length - AT_ONCE;
  fill(section(),
    h('ul', {}, some.map(line)),
    more > 0 && h('button.more', { type: 'button', 'aria-expanded': String(all), onclick: toggle }, all ? 'Show fewer' : `Show ${more} more`));
  if (focused >= 0) section().querySelectorAll('a, button')[focused]?.focus();
}

function toggle() {
  all = !all;
  shown = null;
  draw({});
  section().querySelector('.more')?.focus();
}

function line({ kind, severity, subject, text, since_ms, link }) {
  const tone = severity === 'critical' ? 'critical' : 'warning';
  const name = subject.startsWith('did:') ? shortDid(subject) : subject;
  const target = ownLink(link);
  return h(`li.problem.${tone}`, { 'data-kind': kind }, icon(tone),
    h('span.severity', {}, WORDS[tone]),
    h('span.what', {}, h('bdi.subject', { title: subject }, name), ' ', h('span', {}, text)),
    h('span.since', {}, ago(since_ms)),
    target && h('a.handle', { href: target }, destination(target)));
}

/** Where a link leads, in words: "Go to hooks". */
const destination = (link) => `Go to ${link.slice(2).split(/[/?]/)[0] || 'overview'}`;

// The frame around the pages: which page is shown, how fresh it is, and the beat by which all is
// drawn, once a second.

import { forgetToken, hasToken } from './api.js';
import { tick as tickTimes } from './clock.js';
import { fill, h, setText } from './dom.js';
import { clockTime, duration } from './format.js';
import { icon } from './icons.js';
import { listenToKeys } from './keys.js';
import { listen, live, loadSeries, retryNow } from './live.js';
import { announce, heading } from './parts.js';
import { showProblems } from './problems.js';
import { href, route } from './router.js';
import { askForTokens } from './signin.js';
import { knowsWho, learnWho, onPause, paused, togglePause, whoAmI } from './state.js';
import { View } from './view.js';
import { agentPage } from './pages/agent.js';
import { agentsPage } from './pages/agents.js';
import { auditPage } from './pages/audit.js';
import { configPage } from './pages/config.js';
import { decisionsPage } from './pages/decisions.js';
import { flowPage } from './pages/flow.js';
import { historyPage } from './pages/history.js';
import { hooksPage } from './pages/hooks.js';
import { nodesPage } from './pages/nodes.js';
import { overviewPage } from './pages/overview.js';

const PAGES = {
  overview: { title: 'Overview', group: 'Now', open: overviewPage },
  agents: { title: 'Agents', group: 'Now', open: agentsPage, one: agentPage },
  flow: { title: 'Flow', group: 'Now', open: flowPage },
  hooks: { title: 'Hooks', group: 'Policy', open: hooksPage },
  decisions: { title: 'Decisions', group: 'Policy', open: decisionsPage },
  history: { title: 'History', group: 'Record', open: historyPage },
  audit: { title: 'Audit', group: 'Record', open: auditPage },
  nodes: { title: 'Nodes', group: 'Gateway', open: nodesPage },
  config: { title: 'Config', group: 'Gateway', open: configPage },
};

/** Without news for this long, what is shown is no longer how things are. */
const STALE_AFTER_MS = 4000;

const byId = (id) => document.getElementById(id);
let view = null;
let shown = null;

function open(first = false) {
  const { segments, query } = route();
  const name = segments[0] ?? 'overview';
  const page = PAGES[name];
  view?.end();
  view = new View(byId('main'));
  shown = page ? name : null;
  if (!page) fill(view.root, heading('There is no such page'), h('p', {}, h('a', { href: href([]) }, 'To the overview')));
  else if (segments.length > 1 && page.one) page.one(view, segments[1], query);
  else page.open(view, query, segments[1]);
  markNav();
  titleTab();
  // Whoever came by keyboard or screen reader is told where they are; nobody moves at the start.
  if (!first) {
    scrollTo(0, 0);
    view.root.querySelector('h1')?.focus();
  }
}

function buildNav() {
  const groups = Map.groupBy(Object.entries(PAGES), ([, page]) => page.group);
  fill(byId('nav'), [...groups].map(([group, pages]) => h('div.group', {}, h('span.group-name', { 'aria-hidden': 'true' }, group),
    pages.map(([name, { title }]) => h('a', { href: href(name === 'overview' ? [] : [name]), 'data-page': name }, title)))));
}

function markNav() {
  for (const link of byId('nav').querySelectorAll('a')) {
    const here = link.dataset.page === shown;
    if (here) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
    // On a phone the pages are a strip that scrolls.
    if (here) byId('nav').scrollLeft = link.offsetLeft - 40;
  }
}

/** The tab's title says what is wrong, for who has the page in the background. */
function titleTab() {
  const wrong = live.overview?.problems.length ?? 0;
  const title = `${wrong ? `(${wrong}) ` : ''}${PAGES[shown]?.title ?? 'Not found'} · ${live.overview?.node.id ?? 'Conexus'}`;
  if (document.title !== title) document.title = title;
}

function drawHead() {
  const { overview } = live;
  const node = overview?.node;
  setText(byId('node'), node ? [node.id, `v${node.version}`, node.phase === 'running' ? '' : node.phase, whoAmI().name ?? ''].filter(Boolean).join(' · ') : '');
  byId('forget').hidden = !(whoAmI().tokens_required && hasToken());
  drawState();
  showProblems(overview);
  titleTab();
}

/** `state`: how fresh the page is, by picture and word. */
function drawState() {
  const silent = live.heardAt !== null && Date.now() - Math.max(live.heardAt, live.upAt) > STALE_AFTER_MS;
  const down = live.link === 'down' || (live.link === 'up' && silent);
  const state = down ? 'down' : paused() !== null ? 'paused' : live.heardAt === null || live.link === 'connecting' ? 'connecting' : 'up';
  const since = live.downSince ?? live.heardAt ?? Date.now();
  const text = {
    down: `Not connected since ${clockTime(since)}`,
    paused: `Paused since ${clockTime(paused())}`,
    connecting: 'Connecting …',
    up: `Live ${clockTime(live.heardAt)}`,
  }[state];
  const place = byId('state');
  if (place.dataset.state !== state) {
    place.dataset.state = state;
    fill(place, icon({ down: 'cut', paused: 'pause', connecting: 'live', up: 'live' }[state]), h('span'));
    if (state === 'down') announce(`${text}. What is shown is old.`);
    document.body.classList.toggle('stale', state === 'down');
    drawStaleNote(state === 'down');
  }
  setText(place.lastChild, text);
  if (state === 'down') updateStaleNote(since);
}

function drawStaleNote(on) {
  const note = byId('stale');
  note.hidden = !on;
  fill(note, on && [icon('cut'), h('span.words'), h('button', { type: 'button', onclick: retryNow }, 'Try now')]);
}

function updateStaleNote(since) {
  const next = Math.max(0, Math.ceil((live.retryAt - Date.now()) / 1000));
  const again = next > 0 ? `trying again in ${next} s` : 'trying again';
  setText(byId('stale').querySelector('.words'),
    `Not connected since ${clockTime(since)}, for ${duration(Date.now() - since)}: ${live.why || 'nothing comes'}. What you see is from then; ${again}.`);
}

function drawPause() {
  const still = paused() !== null;
  fill(byId('pause'), icon(still ? 'play' : 'pause'), h('span', {}, still ? 'Resume' : 'Pause'));
  byId('pause').setAttribute('aria-pressed', String(still));
  byId('pause').title = still ? 'Show what has come since' : 'Hold the page still; problems go on being shown';
  document.body.classList.toggle('paused', still);
}

function drawTheme() {
  const theme = window.conexusTheme.current();
  fill(byId('theme'), icon(theme), h('span', {}, { system: 'System', light: 'Light', dark: 'Dark' }[theme]));
  byId('theme').setAttribute('aria-label', `Theme: ${theme}. Change it`);
  byId('theme').title = `Theme: ${theme}`;
}

/** A page that was opened while nobody answered has buttons for nobody; it is opened again. */
async function linkChanged() {
  drawHead();
  if (live.link !== 'up' || knowsWho()) return;
  await learnWho().catch(() => {});
  if (knowsWho()) open(true);
}

function beat() {
  if (document.hidden) return;
  drawHead();
  view?.tick();
  if (paused() === null) tickTimes();
}

async function start() {
  askForTokens();
  listenToKeys();
  buildNav();
  drawPause();
  drawTheme();
  drawHead();
  byId('pause').addEventListener('click', togglePause);
  byId('theme').addEventListener('click', () => { window.conexusTheme.next(); drawTheme(); });
  byId('forget').addEventListener('click', () => { forgetToken(); location.reload(); });
  byId('skip').addEventListener('click', (event) => { event.preventDefault(); byId('main').focus(); });
  onPause(() => { drawPause(); view?.touch(); beat(); });
  addEventListener('hashchange', () => open());
  // The link's changes are told at once; numbers wait for the beat.
  listen(({ topic }) => { if (topic === 'link') linkChanged(); });
  // Buttons are built by what the token may do, so that is known first.
  await learnWho().catch(() => {});
  open(true);
  loadSeries().then(beat, () => {});
  setInterval(beat, 1000);
}

start();

// One agent: what it is, what waits for it, what became of its sessions and messages; and the
// handles: disconnect, ban.

import { agentPath, get, post } from '../api.js';
import { ago, at, until } from '../clock.js';
import { ask } from '../dialog.js';
import { fill, h, refill, setText } from '../dom.js';
import { bytes, clockTime, count, duration, micros, shortDid } from '../format.js';
import { agentLink, attempt, badge, copyButton, empty, facts, foreign, heading, operateButton, operateNote, panel } from '../parts.js';
import { href } from '../router.js';
import { Table } from '../table.js';
import { lift } from './bans.js';
import { historyColumns } from './history.js';

const REFRESH_SECONDS = 3;
const MESSAGES = 100;

export function agentPage(view, did) {
  const said = h('div');
  const body = h('div.stack');
  const messages = [];
  const gap = h('p.soft');
  // DIDs have two spellings: messages have the gateway's, the address of this page may have the other.
  let itself = did;
  const list = new Table({ label: 'Messages as they pass', columns: messageColumns((from) => from === did || from === itself), key: ({ key }) => key, none: 'None since this page was opened.' });
  const history = new Table({ label: 'History', columns: historyColumns(false), key: ({ at_ms: at, kind, session }) => `${at} ${kind} ${session}`, none: 'Nothing is remembered.' });
  const top = h('div');
  const load = () => view.load(body, (signal) => get(agentPath(did), {}, signal).catch(unknown(did)), show);
  const show = (agent) => {
    itself = agent.did;
    history.show(agent.history ?? []);
    if (!history.panel.isConnected) fill(body, top, history.panel, list.panel);
    refill(top, [agent.present, agent.banned, agent.capabilities, agent.attributes, agent.labels], () => frame(agent, said, load));
    refill(top.querySelector('.agent-facts'), agent, () => facts(about(agent)));
  };
  history.panel = panel('History', history.element);
  list.panel = panel('Messages as they pass', h('p.soft', {}, 'Both directions, while this page is open; payloads are never shown.'), gap, list.element);

  // Messages are not remembered, so there is no way to fill the hole.
  const again = () => {
    setText(gap, `Not all of them: until ${clockTime(Date.now())} the stream was away, or too fast for this page.`);
    return load();
  };

  let number = 0;
  view.root.append(
    h('p.crumb', {}, h('a', { href: href(['agents']) }, 'Agents')),
    heading(shortDid(did)),
    h('p.full-did', {}, h('code', {}, did), copyButton(did, 'DID')), said, body);
  view.hear({
    message: (message) => {
      messages.unshift({ ...message, key: number += 1 });
      messages.length = Math.min(messages.length, MESSAGES);
    },
    session: () => {},
  }, { agent: did, again });
  view.draw(() => list.show(messages));
  load();
  view.every(REFRESH_SECONDS, load);
}

/** Nothing is known of it; it can be banned all the same. */
const unknown = (did) => (error) => {
  if (error.status !== 404) throw error;
  return { did, present: false, banned: null };
};

function frame(agent, said, load) {
  const { did, present, banned } = agent;
  const act = async (doing, done) => {
    if (await attempt(said, doing, done)) load();
  };
  return h('div.stack', {},
    h('div.handles', {},
      present ? badge('present', 'fine') : badge('not here', 'quiet'),
      banned && badge('banned', 'critical'),
      present && operateButton('Disconnect …', () => disconnect(did, act), 'danger'),
      banned ? operateButton('Lift the ban …', () => lift(did, said, load)) : operateButton('Ban …', () => ban(did, act), 'danger')),
    operateNote(),
    h('div.pair', {}, panel('Session', h('div.agent-facts')), panel('What it says of itself', own(agent))));
}

function about(agent) {
  const { banned } = agent;
  return [
    banned && ['Banned', h('span', {}, until(banned.until_ms), banned.by ? ` by ${banned.by}` : '', banned.reason ? [': ', foreign(banned.reason, 80)] : '')],
    ['Name', foreign(agent.name, 60)],
    ...(agent.present === false ? [] : [
      ['Session', agent.session], ['Address', agent.address], ['Protocol', agent.subprotocol],
      ['Connected', ago(agent.connected_at_ms)], ['Last heard', ago(agent.last_activity_ms)], ['Lease ends', until(agent.lease_until_ms)],
      ['Sent', count(agent.sent)], ['Received', count(agent.received)],
      ['Outbox', `${count(agent.outbox_messages)} messages, ${bytes(agent.outbox_bytes)}`],
      ['Reads', agent.stalled_ms ? badge(`not for ${duration(agent.stalled_ms)}`, 'critical') : 'as it should'],
    ]),
    ['Mailbox', `${count(agent.mailbox_messages ?? 0)} messages`],
    ['Rate class', agent.rate_class ?? 'none'],
  ];
}

function own({ capabilities = [], attributes = {}, labels = {} }) {
  const pairs = (object) => Object.entries(object).map(([name, value]) => [foreign(name, 40), foreign(typeof value === 'string' ? value : JSON.stringify(value), 80)]);
  return h('div', {},
    h('h3', {}, 'Capabilities'), capabilities.length ? h('ul.chips', {}, capabilities.map((name) => h('li', {}, foreign(name, 40)))) : empty('none'),
    h('h3', {}, 'Attributes'), Object.keys(attributes).length ? facts(pairs(attributes)) : empty('none'),
    h('h3', {}, 'Labels, by policy'), Object.keys(labels).length ? facts(pairs(labels)) : empty('none'));
}

async function disconnect(did, act) {
  const answer = await ask({
    title: 'Disconnect this agent?', tone: 'danger', action: 'Disconnect',
    text: [h('p', {}, h('code', {}, did)), 'Its session is closed with 4009 after what waits for it was written. It may come back at once; to keep it away, ban it.'],
    fields: [{ name: 'reason', label: 'Reason (the agent is told; optional)', control: h('input', { type: 'text', maxlength: '120', autofocus: true }) }],
  });
  if (answer) act(() => post(`${agentPath(did)}/disconnect`, answer.reason ? { reason: answer.reason } : {}), () => 'Disconnected.');
}

async function ban(did, act) {
  const lengths = [[600, '10 minutes'], [3600, '1 hour'], [86400, '1 day'], [604800, '7 days']];
  const answer = await ask({
    title: 'Ban this agent?', tone: 'danger', action: 'Ban',
    text: [h('p', {}, h('code', {}, did)), 'It is disconnected, and its registrations are refused until the ban ends.'],
    fields: [
      { name: 'seconds', label: 'For', control: h('select', { autofocus: true }, lengths.map(([seconds, words]) => h('option', { value: String(seconds) }, words))) },
      { name: 'reason', label: 'Reason (optional)', control: h('input', { type: 'text', maxlength: '120' }) },
    ],
  });
  if (!answer) return;
  const order = { did, seconds: Number(answer.seconds), ...(answer.reason && { reason: answer.reason }) };
  act(() => post('/api/v1/bans', order), () => 'Banned.');
}

const TONES = { delivered: 'fine', held: 'warning', refused: 'critical' };

const messageColumns = (sent) => [
  { label: 'When', value: ({ at_ms: ms }) => ms, cell: ({ at_ms: ms }) => at(ms) },
  { label: 'Direction', value: ({ from }) => (sent(from) ? 'sent to' : 'received from') },
  { label: 'Other side', wide: true, value: ({ from, to }) => (sent(from) ? to : from), cell: ({ from, to }) => agentLink(sent(from) ? to : from) },
  { label: 'Type', value: ({ type }) => type },
  { label: 'Outcome', value: ({ outcome, reason }) => `${outcome} ${reason ?? ''}`, cell: ({ outcome, reason }) => badge(reason ? `${outcome}: ${reason}` : outcome, TONES[outcome]) },
  { label: 'Bytes', numeric: true, value: ({ bytes: size }) => count(size) },
  { label: 'Latency', numeric: true, value: ({ latency_us: us }) => (us === null ? '–' : micros(us)) },
  { label: 'Trace', value: ({ trace }) => trace, cell: ({ trace }) => (trace ? h('span.did', {}, h('code', { title: trace }, trace.slice(0, 8)), copyButton(trace, 'trace id')) : '–') },
];

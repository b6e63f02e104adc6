// The picture of who signals whom: agents on a circle, a curve for each outcome between two of them.
//
// An agent keeps its place while it is among the busiest: a picture that jumps each second shows
// nothing. Curves bend to the right of their direction, so that there and back are two lines.

import { fill, s, setAttribute } from './dom.js';
import { count, shortDid, shorten } from './format.js';
import { OUTCOMES } from './flow.js';
import { href } from './router.js';

/** Places around the circle; the next size is taken when these do not suffice. */
const SIZES = [4, 8, 12, 16, 24];
const MARGIN = { wide: 120, narrow: 58 };

export class Graph {
  #places = [];
  #width = 0;
  #shown = { agents: [], edges: [] };
  #chosen = null;
  #edges = s('g', { class: 'edges' });
  #nodes = s('g', { class: 'nodes' });
  #svg = s('svg', { role: 'group', 'aria-label': 'Who signals whom; the table below says the same' }, arrowheads(), this.#edges, this.#nodes);

  constructor(element) {
    element.append(this.#svg);
    new ResizeObserver(([entry]) => {
      this.#width = Math.round(entry.contentRect.width);
      this.#draw();
    }).observe(element);
  }

  /** The agents, at most 24, and the pairs between them. */
  show(shown) {
    this.#shown = shown;
    this.#seat(shown.agents);
    this.#draw();
  }

  #seat(agents) {
    const present = new Set(agents);
    const size = SIZES.find((size) => size >= agents.length) ?? SIZES.at(-1);
    // Never smaller than it was while anybody still sits there, lest everybody moves.
    const seats = Math.max(size, ...this.#places.map((did, index) => (present.has(did) ? SIZES.find((size) => size > index) : 0)));
    const places = Array.from({ length: seats }, (_, index) => (present.has(this.#places[index]) ? this.#places[index] : null));
    const seated = new Set(places);
    for (const did of agents.filter((did) => !seated.has(did))) places[places.indexOf(null)] = did;
    this.#places = places;
  }

  #draw() {
    if (!this.#width) return;
    const narrow = this.#width < 560;
    const margin = narrow ? MARGIN.narrow : MARGIN.wide;
    const height = Math.min(this.#width, 560);
    const radius = Math.min(this.#width / 2 - margin, height / 2 - 30);
    const centre = { x: this.#width / 2, y: height / 2 };
    setAttribute(this.#svg, 'width', this.#width);
    setAttribute(this.#svg, 'height', height);
    const spots = new Map();
    this.#places.forEach((did, index) => {
      if (!did) return;
      const angle = (index / this.#places.length) * 2 * Math.PI - Math.PI / 2;
      spots.set(did, { angle, x: centre.x + radius * Math.cos(angle), y: centre.y + radius * Math.sin(angle) });
    });
    this.#drawEdges(spots, centre);
    this.#drawNodes(spots, narrow);
  }

  #drawEdges(spots, centre) {
    const most = Math.max(1, ...this.#shown.edges.map(({ total }) => total));
    // Where everybody talks to everybody, thick lines would be one blot.
    const thin = Math.max(1, Math.sqrt(this.#shown.edges.length / 40));
    const curves = this.#shown.edges.flatMap((pair) => OUTCOMES.filter((outcome) => pair[outcome] > 0)
      .map((outcome) => curve(pair, outcome, (1 + 4 * Math.sqrt(pair[outcome] / most)) / thin, spots, centre)));
    fill(this.#edges, curves);
    this.#dim();
  }

  /** Nodes stay what they are, so that one with the focus keeps it. */
  #drawNodes(spots, narrow) {
    const there = new Map([...this.#nodes.children].map((node) => [node.dataset.did, node]));
    for (const [did, node] of there) if (!spots.has(did)) node.remove();
    for (const [did, spot] of spots) {
      const node = there.get(did) ?? this.#nodes.appendChild(this.#node(did));
      const [dot, label] = node.children;
      setAttribute(dot, 'cx', spot.x);
      setAttribute(dot, 'cy', spot.y);
      const right = Math.cos(spot.angle) > 0.05;
      const middle = Math.abs(Math.cos(spot.angle)) <= 0.05;
      setAttribute(label, 'x', spot.x + (middle ? 0 : right ? 10 : -10));
      setAttribute(label, 'y', spot.y + (middle ? Math.sign(Math.sin(spot.angle)) * 16 + 4 : 4));
      setAttribute(label, 'text-anchor', middle ? 'middle' : right ? 'start' : 'end');
      const text = narrow ? shorten(did, 0, 6) : shortDid(did);
      if (label.textContent !== text) label.textContent = text;
    }
  }

  #node(did) {
    const choose = (chosen) => () => {
      this.#chosen = chosen;
      this.#dim();
    };
    return s('a', { href: href(['agents', did]), 'data-did': did, 'aria-label': did,
      onpointerenter: choose(did), onpointerleave: choose(null), onfocus: choose(did), onblur: choose(null) },
    s('circle', { r: 5 }), s('text', {}), s('title', {}, did));
  }

  /** What has nothing to do with the agent that is looked at steps back. */
  #dim() {
    for (const edge of this.#edges.children) {
      const mine = this.#chosen === null || edge.dataset.from === this.#chosen || edge.dataset.to === this.#chosen;
      edge.classList.toggle('dim', !mine);
    }
  }
}

function curve(pair, outcome, width, spots, centre) {
  const from = spots.get(pair.from);
  const to = spots.get(pair.to);
  const aside = (OUTCOMES.indexOf(outcome) + 1) * 9;
  const path = pair.from === pair.to ? loop(from, centre) : arc(from, to, centre, aside);
  return s('path', { class: `edge ${outcome}`, d: path, 'stroke-width': width.toFixed(1), 'marker-end': `url(#to-${outcome})`, 'data-from': pair.from, 'data-to': pair.to },
    s('title', {}, `${shortDid(pair.from)} to ${shortDid(pair.to)}: ${count(pair[outcome])} ${outcome}`));
}

/** Bends towards the centre, and to the right of its way; ends short of the dot, for the arrow. */
function arc(from, to, centre, aside) {
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
  const right = { x: -(to.y - from.y) / length, y: (to.x - from.x) / length };
  // Neighbours need a small bow only; a curve across the circle keeps clear of the dots beside it.
  const radius = Math.hypot(from.x - centre.x, from.y - centre.y) || 1;
  const pull = Math.min(0.45, 0.1 + 0.2 * (length / radius));
  const bend = {
    x: ((from.x + to.x) / 2) * (1 - pull) + centre.x * pull + right.x * aside,
    y: ((from.y + to.y) / 2) * (1 - pull) + centre.y * pull + right.y * aside,
  };
  const last = Math.hypot(to.x - bend.x, to.y - bend.y) || 1;
  const end = { x: to.x - ((to.x - bend.x) / last) * 8, y: to.y - ((to.y - bend.y) / last) * 8 };
  return `M${round(from)}Q${round(bend)} ${round(end)}`;
}

/** An agent may write to itself. */
function loop(at, centre) {
  const inward = Math.atan2(centre.y - at.y, centre.x - at.x);
  const corner = (turn) => ({ x: at.x + 44 * Math.cos(inward + turn), y: at.y + 44 * Math.sin(inward + turn) });
  return `M${round(at)}C${round(corner(-0.6))} ${round(corner(0.6))} ${round({ x: at.x + 8 * Math.cos(inward + 0.4), y: at.y + 8 * Math.sin(inward + 0.4) })}`;
}

const round = ({ x, y }) => `${x.toFixed(1)} ${y.toFixed(1)}`;

function arrowheads() {
  return s('defs', {}, OUTCOMES.map((outcome) =>
    s('marker', { id: `to-${outcome}`, viewBox: '0 0 8 8', refX: 6, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: 'userSpaceOnUse', orient: 'auto' },
      s('path', { class: `head ${outcome}`, d: 'M0 .8 7 4 0 7.2z' }))));
}

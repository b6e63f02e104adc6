// Line charts in SVG: a few measures over the last minutes, with axes, units and a readout.
//
// Lines differ by colour and by dash. The legend is the readout: it shows the newest values, or
// those under the pointer; by keyboard the chart is a slider over time. For screen readers there is
// a sentence besides.

import { fill, h, s, setAttribute, setText } from './dom.js';
import { clockTime } from './format.js';

const HEIGHT = 150;
const MARGIN = { top: 8, right: 10, bottom: 20, left: 54 };
const SPAN_MS = 600_000;
const SUMMARY_EVERY_MS = 10_000;

/** Round multiples of `unit` that make three to five lines; fewer rather than parts of a unit. */
export function ticks(highest, unit = 1) {
  if (!(highest > unit)) return [0, unit];
  const rough = Math.max(1, highest / unit / 4);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough);
  return Array.from({ length: Math.ceil(highest / unit / step) + 1 }, (_, index) => index * step * unit);
}

/** Powers of ten around what there is, for measures whose outliers would flatten all else. */
export function powers(lowest, highest) {
  const first = Math.floor(Math.log10(Math.max(1, lowest)));
  const last = Math.max(first + 1, Math.ceil(Math.log10(Math.max(1, highest))));
  return Array.from({ length: last - first + 1 }, (_, index) => 10 ** (first + index));
}

/**
 * `lines`: `{ name, key, tone }`, the tone being a class of parts.css. `format` is for values,
 * `axis` for the few numbers at the side. `scale` may be `log`; `step` is what axes count in.
 */
export class Chart {
  #title;
  #lines;
  #format;
  #axis;
  #step;
  #logarithmic;
  #series = { at_ms: [] };
  #width = 0;
  #pointed = null;
  #summarized = 0;
  #parts = {};

  constructor({ title, unit, lines, format, axis = format, step = 1, scale = 'linear' }) {
    this.#title = title;
    this.#lines = lines;
    this.#format = format;
    this.#axis = axis;
    this.#step = step;
    this.#logarithmic = scale === 'log';
    this.element = this.#build(unit);
    // Told, never asked: reading the width while drawing would lay the page out anew each time.
    new ResizeObserver(([entry]) => {
      this.#width = Math.round(entry.contentRect.width);
      this.#draw();
    }).observe(this.#parts.plot);
  }

  #build(unit) {
    const grid = s('g', { class: 'grid' });
    const paths = this.#lines.map(({ tone }) => s('path', { class: `line ${tone}` }));
    const cursor = s('g', { class: 'cursor', visibility: 'hidden' }, s('line', { y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
      this.#lines.map(({ tone }) => s('circle', { r: 3.2, class: tone })));
    const svg = s('svg', { height: HEIGHT, 'aria-hidden': 'true' }, grid, [...paths].reverse(), cursor);
    const values = this.#lines.map(() => h('span.value'));
    // One line needs no legend; its name is the chart's.
    const alone = this.#lines.length === 1 && h('span.unseen', {}, this.#lines[0].name);
    const when = h('span.when.soft', {}, 'now');
    const legend = h('div.legend', {}, this.#lines.map(({ name, tone }, index) => h('span.entry', {}, alone || [sample(tone), h('span', {}, name)], values[index])));
    const plot = h('div.plot', { tabindex: '0', role: 'slider', 'aria-label': `${this.#title}, over time`, 'aria-valuemin': '0' }, svg);
    const summary = h('p.unseen');
    this.#parts = { grid, paths, cursor, svg, values, when, plot, summary };
    plot.addEventListener('pointermove', (event) => this.#point(this.#indexAt(event.offsetX)));
    plot.addEventListener('pointerleave', () => this.#point(null));
    plot.addEventListener('blur', () => this.#point(null));
    plot.addEventListener('focus', () => this.#point(this.#series.at_ms.length - 1));
    plot.addEventListener('keydown', (event) => this.#key(event));
    return h('figure.chart', {}, h('figcaption', {}, h('h2', {}, this.#title), h('span.unit.soft', {}, unit), when), legend, plot, summary);
  }

  show(series) {
    this.#series = series;
    this.#draw();
  }

  #draw() {
    const { at_ms: times } = this.#series;
    if (!this.#width || !times.length) return;
    const { svg, grid, paths } = this.#parts;
    setAttribute(svg, 'width', this.#width);
    const columns = this.#lines.map(({ key }) => this.#series[key] ?? []);
    const { marks, y } = this.#scaleY(columns);
    const x = this.#scaleX();
    this.#drawGrid(grid, marks, x, y);
    paths.forEach((path, index) => path.setAttribute('d', outline(times, columns[index], x, y)));
    this.#drawReadout(x, y, columns);
    this.#summarize(columns);
  }

  #scaleY(columns) {
    const [lowest, highest] = bounds(columns.flat());
    const marks = this.#logarithmic ? powers(lowest, highest) : ticks(highest, this.#step);
    const place = this.#logarithmic ? (value) => Math.log10(Math.max(value, marks[0])) : (value) => value;
    const [bottom, top] = [place(marks[0]), place(marks.at(-1))];
    const room = HEIGHT - MARGIN.top - MARGIN.bottom;
    return { marks, y: (value) => HEIGHT - MARGIN.bottom - ((place(value) - bottom) / (top - bottom)) * room };
  }

  #scaleX() {
    const end = this.#series.at_ms.at(-1);
    const room = this.#width - MARGIN.left - MARGIN.right;
    return (ms) => MARGIN.left + ((ms - end + SPAN_MS) / SPAN_MS) * room;
  }

  #drawGrid(grid, marks, x, y) {
    const end = this.#series.at_ms.at(-1);
    const step = this.#width < 420 ? 240_000 : 120_000;
    const horizontal = marks.map((mark) => [
      s('line', { x1: MARGIN.left, x2: this.#width - MARGIN.right, y1: y(mark), y2: y(mark) }),
      s('text', { x: MARGIN.left - 6, y: y(mark) + 4, 'text-anchor': 'end' }, this.#axis(mark)),
    ]);
    const times = [];
    for (let at = Math.ceil((end - SPAN_MS) / step) * step; at <= end; at += step) {
      if (x(at) > MARGIN.left + 12 && x(at) < this.#width - MARGIN.right - 12) {
        times.push(s('text', { x: x(at), y: HEIGHT - 4, 'text-anchor': 'middle' }, clockTime(at).slice(0, 5)));
      }
    }
    fill(grid, horizontal, times);
  }

  #indexAt(left) {
    const { at_ms: times } = this.#series;
    if (!times.length) return null;
    const room = this.#width - MARGIN.left - MARGIN.right;
    const at = times.at(-1) - SPAN_MS + ((left - MARGIN.left) / room) * SPAN_MS;
    let nearest = 0;
    // The columns are a second apart, but for gaps.
    times.forEach((time, index) => {
      if (Math.abs(time - at) < Math.abs(times[nearest] - at)) nearest = index;
    });
    return nearest;
  }

  /** Kept as a time, so that the cursor stays where it is while the chart moves on. */
  #point(index) {
    this.#pointed = index === null ? null : this.#series.at_ms[index] ?? null;
    this.#draw();
  }

  #key(event) {
    const last = this.#series.at_ms.length - 1;
    const here = this.#pointed === null ? last : this.#series.at_ms.indexOf(this.#pointed);
    const to = {
      ArrowLeft: here - 5, ArrowDown: here - 5, ArrowRight: here + 5, ArrowUp: here + 5,
      PageDown: here - 60, PageUp: here + 60, Home: 0, End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#point(Math.max(0, Math.min(last, to)));
  }

  #drawReadout(x, y, columns) {
    const { cursor, values, when, plot } = this.#parts;
    const times = this.#series.at_ms;
    const found = this.#pointed === null ? -1 : times.indexOf(this.#pointed);
    const index = found < 0 ? times.length - 1 : found;
    const words = columns.map((column) => (measured(column[index]) ? this.#format(column[index]) : '–'));
    words.forEach((word, line) => setText(values[line], word));
    setText(when, found < 0 ? 'now' : `at ${clockTime(times[index])}`);
    setAttribute(cursor, 'visibility', found < 0 ? 'hidden' : 'visible');
    setAttribute(plot, 'aria-valuemax', times.length - 1);
    setAttribute(plot, 'aria-valuenow', index);
    setAttribute(plot, 'aria-valuetext', `${clockTime(times[index])}: ${this.#lines.map(({ name }, line) => `${name} ${words[line]}`).join(', ')}`);
    if (found < 0) return;
    const [rule, ...dots] = cursor.children;
    setAttribute(rule, 'x1', x(times[index]));
    setAttribute(rule, 'x2', x(times[index]));
    dots.forEach((dot, line) => {
      const value = columns[line][index];
      setAttribute(dot, 'visibility', measured(value) ? 'inherit' : 'hidden');
      setAttribute(dot, 'cx', x(times[index]));
      setAttribute(dot, 'cy', y(value ?? 0));
    });
  }

  #summarize(columns) {
    if (Date.now() - this.#summarized < SUMMARY_EVERY_MS) return;
    this.#summarized = Date.now();
    const sentences = this.#lines.map(({ name }, line) => {
      const newest = columns[line].findLast(measured);
      if (newest === undefined) return `${name}: nothing measured`;
      return `${name}: now ${this.#format(newest)}, between ${bounds(columns[line]).map(this.#format).join(' and ')}`;
    });
    setText(this.#parts.summary, `The last 10 minutes. ${sentences.join('; ')}.`);
  }
}

const measured = (value) => value !== null && value !== undefined;

/** The least and the most that was measured; 0 and 0 when nothing was. */
function bounds(values) {
  let [least, most] = [Infinity, 0];
  for (const value of values) {
    if (!measured(value)) continue;
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return [Number.isFinite(least) ? least : 0, most];
}

/** A short piece of a line, as it is drawn. */
export function sample(tone) {
  return s('svg', { class: 'sample', width: 20, height: 8, 'aria-hidden': 'true' }, s('path', { class: `line ${tone}`, d: 'M1 4H19' }));
}

/** Lifts the pen where nothing was measured, and where seconds are missing. */
function outline(times, column, x, y) {
  let path = '';
  let down = false;
  times.forEach((at, index) => {
    const value = column[index];
    if (!measured(value)) {
      down = false;
      return;
    }
    const joined = down && at - times[index - 1] < 5000;
    path += `${joined ? 'L' : 'M'}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    down = true;
  });
  return path;
}

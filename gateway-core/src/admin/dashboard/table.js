// Tables that change while somebody reads them: rows are kept by key, and only cells whose value
// changed are drawn, so neither focus nor selection is lost.
//
// Roles are spelled out, because on narrow screens rows are laid out as cards, and with another
// `display` browsers forget that a table is one.

import { fill, h, present, setAttribute, setText } from './dom.js';

/**
 * `columns`: `{ label, value(row), cell?(row), numeric?, sort?: false, wide? }`. `value` is what is compared,
 * sorted and, without `cell`, shown.
 */
export class Table {
  #columns;
  #key;
  #label;
  #rows = [];
  #kept = new Map();
  #sorted = null;
  #head;
  #body = h('tbody', { role: 'rowgroup' });
  #none;

  constructor({ label, columns, key, none = 'Nothing here.', sortable = false, sorted = null, rowClass }) {
    this.#columns = columns;
    this.#key = key;
    this.#label = label;
    this.#sorted = sorted;
    this.rowClass = rowClass;
    this.#head = columns.map((column) => this.#header(column, sortable));
    this.#none = h('p.empty', { hidden: true }, none);
    this.element = h('div.table-box', { tabindex: '0', role: 'region', 'aria-label': label },
      h('table', { role: 'table', 'aria-label': this.#label },
        h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, this.#head)), this.#body),
      this.#none);
    this.#markSorted();
  }

  #header(column, sortable) {
    const cell = h('th', { role: 'columnheader', scope: 'col', class: column.numeric ? 'numeric' : null });
    if (!sortable || column.sort === false) return fill(cell, column.label);
    const button = h('button.sort', { type: 'button', onclick: () => this.#sortBy(column) }, column.label);
    return fill(cell, button);
  }

  #sortBy(column) {
    const label = column.label;
    // Numbers are looked at from the top, names from the start.
    const descending = this.#sorted?.label === label ? !this.#sorted.descending : Boolean(column.numeric);
    this.#sorted = { label, descending };
    this.#markSorted();
    this.show(this.#rows);
  }

  #markSorted() {
    this.#columns.forEach((column, index) => {
      const mine = this.#sorted?.label === column.label;
      setAttribute(this.#head[index], 'aria-sort', mine ? (this.#sorted.descending ? 'descending' : 'ascending') : null);
    });
  }

  #inOrder(rows) {
    const column = this.#columns.find(({ label }) => label === this.#sorted?.label);
    if (!column) return rows;
    const sign = this.#sorted.descending ? -1 : 1;
    const compare = (a, b) => (typeof a === 'number' && typeof b === 'number' ? a - b : String(a ?? '').localeCompare(String(b ?? '')));
    return [...rows].sort((a, b) => sign * compare(column.value(a), column.value(b)));
  }

  /** What is said where there is no row. */
  none(text) {
    setText(this.#none, text);
  }

  /** Shows these rows, and no others. */
  show(rows) {
    this.#rows = rows;
    const kept = new Map();
    const ordered = this.#inOrder(rows).map((row) => {
      const key = this.#key(row);
      const line = this.#kept.get(key) ?? this.#line();
      this.#update(line, row);
      kept.set(key, line);
      return line.element;
    });
    this.#kept = kept;
    this.#place(ordered);
    this.#none.hidden = rows.length > 0;
    this.element.classList.toggle('without-rows', rows.length === 0);
  }

  #line() {
    const cells = this.#columns.map((column) => h('td', { role: 'cell', 'data-label': column.label, class: [column.numeric && 'numeric', column.wide && 'wide'].filter(Boolean).join(' ') || null }));
    return { element: h('tr', { role: 'row' }, cells), cells, values: [] };
  }

  #update(line, row) {
    this.#columns.forEach((column, index) => {
      const value = column.value(row);
      if (index in line.values && line.values[index] === value) return;
      line.values[index] = value;
      line.cells[index].replaceChildren(...present([column.cell ? column.cell(row) : String(value ?? '–')]));
    });
    const name = this.rowClass?.(row) ?? '';
    if (line.element.className !== name) line.element.className = name;
  }

  /** Moves only what is out of place: a row that holds the focus would lose it. */
  #place(elements) {
    elements.forEach((element, index) => {
      const there = this.#body.children[index];
      if (there !== element) this.#body.insertBefore(element, there ?? null);
    });
    while (this.#body.children.length > elements.length) this.#body.lastChild.remove();
  }
}

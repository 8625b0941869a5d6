/* A table of very many rows, of which only those in sight are elements. Owns scrolling, columns by width,
   the active row and the keys that move it. */

import { el, say } from "./elements.js";
import { order } from "./sorting.js";

const SPARE = 8; // rows above and below those in sight
const SEARCHED = 2000; // rows among which the active one is looked for
const NEAR_END = 40; // rows before the end at which more are asked for
let numbers = 0;

/** Columns: {name, title, width (a grid track), from (the least width of the table in px at which it is shown), number,
    mono, soft, sort (row -> key), text (row -> string), tone (row -> string), href (row -> string)}. */
export class VirtualTable {
  constructor({ label, columns, open, more = () => {}, sorted = () => {} }) {
    this.columns = columns;
    this.rows = [];
    this.order = null;
    this.total = 0;
    this.active = -1;
    this.sorting = null;
    this._open = open;
    this._more = more;
    this._sorted = sorted;
    this._pool = [];
    this._id = `table-${++numbers}`;
    this._sortRun = 0;
    this.header = el("div", { class: "header", role: "row", "aria-rowindex": "1" });
    this.body = el("div", { class: "rows", role: "rowgroup" });
    this.element = el(
      "div",
      { class: "grid", role: "grid", tabindex: "0", "aria-label": label, "aria-readonly": "true", onscroll: () => this._later(), onkeydown: (event) => this._key(event), onfocus: () => this._focused() },
      el("div", { role: "rowgroup" }, this.header),
      this.body,
    );
    this.body.addEventListener("click", (event) => this._click(event));
    this._watch = new ResizeObserver(() => this._layout());
    this._watch.observe(this.element);
  }

  /** Show these rows; `total` is how many there are in all, loaded or not. Rows that are only added keep the place. */
  set(rows, total) {
    const key = this._activeId();
    this.rows = rows;
    this.total = Math.max(total, rows.length);
    this.element.setAttribute("aria-rowcount", String(this.total + 1));
    if (this.sorting) this._sort();
    else {
      this.order = null;
      this._place(key);
    }
  }

  at(place) {
    return this.rows[this.order ? this.order[place] : place];
  }

  close() {
    this._watch.disconnect();
    this._sortRun++;
    this.rows = [];
  }

  async sortBy(name, descending) {
    this.sorting = name ? { name, descending } : null;
    this._heads();
    if (this.sorting) await this._sort();
    else {
      this.order = null;
      this._place(null);
    }
    this._sorted(this.sorting);
  }

  async _sort() {
    const run = ++this._sortRun;
    const column = this.columns.find((one) => one.name === this.sorting.name);
    const rows = this.rows;
    const key = this._activeId();
    const found = await order(rows, column.sort, this.sorting.descending, () => run !== this._sortRun);
    if (found === null || run !== this._sortRun || rows !== this.rows) return;
    this.order = found;
    this._place(key);
  }

  _activeId() {
    return this.active >= 0 ? this.at(this.active)?.id : undefined;
  }

  // The active row is the same thing as before, wherever it is by now, unless that is far down.
  _place(id) {
    let place = this.active;
    if (place >= this.rows.length || this.at(place)?.id !== id) {
      place = -1;
      for (let i = 0; id !== undefined && place < 0 && i < Math.min(this.rows.length, SEARCHED); i++) if (this.at(i).id === id) place = i;
    }
    this.active = place;
    this._height();
    this._draw();
  }

  _height() {
    this.body.style.height = `${this.rows.length * this._rowHeight}px`;
  }

  _layout() {
    const width = this.element.clientWidth;
    if (!width) return;
    const shownNow = this.columns.filter((column) => width >= (column.from ?? 0));
    this._rowHeight = matchMedia("(max-width: 820px)").matches ? 44 : 36;
    if (shownNow.map((one) => one.name).join() !== this.shown?.map((one) => one.name).join()) {
      this.shown = shownNow;
      this.tracks = shownNow.map((one) => one.width).join(" ");
      this.body.textContent = "";
      this._pool = [];
      this._heads();
    }
    this._height();
    this._draw();
  }

  _heads() {
    if (!this.shown) return;
    this.header.style.gridTemplateColumns = this.tracks;
    const had = this.header.contains(document.activeElement) ? document.activeElement.dataset.name : null;
    this.header.replaceChildren(
      ...this.shown.map((column, place) => {
        const down = this.sorting?.name === column.name ? this.sorting.descending : null;
        const sort = down === null ? "none" : down ? "descending" : "ascending";
        const inner = column.sort
          ? el("button", { type: "button", "data-name": column.name, onclick: () => this._turn(column) }, column.title)
          : el("span", null, column.title);
        return el("div", { class: `heading ${column.number ? "number" : ""}`, role: "columnheader", "aria-colindex": place + 1, "aria-sort": column.sort ? sort : null }, inner);
      }),
    );
    if (had) this.header.querySelector(`[data-name="${CSS.escape(had)}"]`)?.focus();
    this.element.setAttribute("aria-colcount", String(this.shown.length));
  }

  _turn(column) {
    const now = this.sorting?.name === column.name ? this.sorting.descending : null;
    if (now === null) this.sortBy(column.name, Boolean(column.number));
    else if (now === Boolean(column.number)) this.sortBy(column.name, !now);
    else this.sortBy(null);
  }

  _later() {
    if (this._frame) return;
    this._frame = requestAnimationFrame(() => {
      this._frame = 0;
      this._draw();
    });
  }

  _draw() {
    if (!this.shown || !this.element.isConnected) return;
    const height = this._rowHeight;
    const top = this.element.scrollTop;
    const seen = Math.ceil(this.element.clientHeight / height);
    const first = Math.max(0, Math.floor(top / height) - SPARE);
    const last = Math.min(this.rows.length, first + seen + 2 * SPARE);
    const size = last - first;
    while (this._pool.length < Math.min(size, seen + 2 * SPARE)) this._pool.push(this._rowElement());
    // A place is always drawn by the same element of the pool while it is in sight.
    const drawn = new Set();
    for (let place = first; place < last; place++) {
      const slot = place % this._pool.length;
      drawn.add(slot);
      this._fill(this._pool[slot], place);
    }
    this._pool.forEach((row, slot) => {
      const hidden = !drawn.has(slot);
      if (row.element.hidden !== hidden) row.element.hidden = hidden;
      if (hidden) row.place = -1;
    });
    this._point(first, last);
    if (last >= this.rows.length - NEAR_END) this._more();
  }

  _rowElement() {
    const cells = this.shown.map((column, place) => {
      const inner = column.href ? el("a", { tabindex: "-1" }) : column.tone ? el("span", { class: "chip" }) : null;
      const kind = ["number", "mono", "soft"].filter((name) => column[name]).join(" ");
      const cell = el("div", { class: `cell ${kind}`, role: "gridcell", "aria-colindex": place + 1 }, inner);
      return { cell, inner: inner ?? cell };
    });
    const element = el("div", { class: "row", role: "row" }, cells.map((one) => one.cell));
    element.style.gridTemplateColumns = this.tracks;
    this.body.append(element);
    return { element, cells, place: -1, row: null };
  }

  _fill(slot, place) {
    const row = this.at(place);
    if (slot.place !== place) {
      slot.place = place;
      slot.element.style.transform = `translateY(${place * this._rowHeight}px)`;
      slot.element.id = `${this._id}-${place}`;
      slot.element.setAttribute("aria-rowindex", String(place + 2));
    }
    slot.element.setAttribute("aria-selected", String(place === this.active));
    this.shown.forEach((column, index) => {
      const { cell, inner } = slot.cells[index];
      const told = column.text(row) ?? "";
      const text = column.href && !told.trim() ? "(no name)" : told; // a link has to be seen
      if (inner.dataset.full !== text) {
        inner.dataset.full = text;
        say(inner, text);
        if (text.length > 18) cell.title = inner.textContent;
        else cell.removeAttribute("title");
      }
      if (column.tone) inner.dataset.tone = column.tone(row);
      if (column.href) inner.href = column.href(row);
    });
  }

  _click(event) {
    const element = event.target.closest(".row");
    const slot = this._pool.find((one) => one.element === element);
    if (!slot || event.target.closest("a") || getSelection().toString()) return;
    this._activate(slot.place);
    this._open(this.at(slot.place));
  }

  _focused() {
    if (this.active < 0 && this.rows.length) this._activate(Math.ceil(this.element.scrollTop / this._rowHeight));
  }

  _activate(place) {
    this.active = place;
    for (const slot of this._pool) slot.element.setAttribute("aria-selected", String(slot.place === place && place >= 0));
    this._point(place, place + 1);
  }

  // Only a row that is an element can be pointed to.
  _point(first, last) {
    if (this.active < 0 || this.active < first || this.active >= last) this.element.removeAttribute("aria-activedescendant");
    else this.element.setAttribute("aria-activedescendant", `${this._id}-${this.active}`);
  }

  _key(event) {
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / this._rowHeight) - 2);
    const last = this.rows.length - 1;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -last - 1, End: last + 1 };
    if (event.key in steps && last >= 0) {
      event.preventDefault();
      this._move(Math.min(last, Math.max(0, this.active + steps[event.key])));
    } else if (event.key === "Enter" && this.active >= 0) {
      event.preventDefault();
      this._open(this.at(this.active));
    }
  }

  _move(place) {
    const height = this._rowHeight;
    const [top, room] = [this.element.scrollTop, this.element.clientHeight - height]; // the header covers a row
    if (place * height < top) this.element.scrollTop = place * height;
    else if ((place + 1) * height > top + room) this.element.scrollTop = (place + 1) * height - room;
    this._draw();
    this._activate(place);
  }
}

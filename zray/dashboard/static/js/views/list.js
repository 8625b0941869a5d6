/* A view that lists all things of one kind: filters in the head, a table of what is loaded, and what is not. */

import { el, icon, replace, say } from "../parts/elements.js";
import { filterBar } from "../parts/filter_bar.js";
import { agoMs, count } from "../parts/format.js";
import { Pages, ROWS_MAX } from "../parts/pages.js";
import { nothing, trouble } from "../parts/things.js";
import { VirtualTable } from "../parts/virtual_table.js";
import { amend } from "../router.js";

const RELOAD_MS = 3000;

/** kind: {kind, title, one, columns, filters, pick, open, empty, beside (another view of the same: its words and address)}. */
export class ListView {
  constructor(kind, { live, route, signal }) {
    this.title = kind.title;
    this._kind = kind;
    this._live = live;
    this._pages = new Pages(kind.kind, kind.pick, () => this._heard(), signal);
    this._table = new VirtualTable({
      label: kind.title,
      columns: kind.columns(live),
      open: (row) => (location.hash = kind.open(row)),
      more: () => this._wanted(),
      sorted: () => this._foot(),
    });
    this._values = route.parameters;
    this._count = el("span", { role: "status", class: "number" });
    this._age = el("span", { class: "faint" });
    this._all = el("button", { type: "button", class: "button small", hidden: true, onclick: () => this._loadAll() });
    this._place = el("div", null, this._table.element);
    const fields = kind.filters?.(live) ?? [];
    const refresh = el("button", { type: "button", class: "button small", onclick: () => this._pages.begin() }, icon("refresh"), "Refresh");
    this.element = el(
      "div",
      { class: "stack" },
      el("div", { class: "head-line" }, el("h1", { tabindex: "-1" }, kind.title), el("div", { class: "actions" }, kind.beside ? el("a", { class: "button small", href: kind.beside[1] }, kind.beside[0]) : null, refresh)),
      el(
        "section",
        { class: "card", "aria-label": kind.title },
        fields.length ? filterBar(fields, this._values, (values) => this._filter(values), signal) : null,
        this._place,
        el("div", { class: "table-foot" }, this._count, this._all, el("span", { class: "end" }, this._age)),
      ),
    );
    live.addEventListener("overview", () => this._overview(), { signal });
    live.addEventListener("state", () => live.state === "live" && this._pages.begin(), { signal });
    signal.addEventListener("abort", () => this._table.close());
    this._pages.begin(this._filters());
  }

  _filters() {
    const keys = (this._kind.filters?.(this._live) ?? []).map((one) => one.key);
    const extra = this._kind.extra ?? [];
    return [...keys, ...extra].filter((key) => this._values[key]).map((key) => [key, this._values[key]]);
  }

  _filter(values) {
    this._values = values;
    amend(values);
    this._table.element.scrollTop = 0;
    this._pages.begin(this._filters());
  }

  // What is loaded is renewed by itself while nobody has gone further into it.
  _overview() {
    if (this._pages.loadedAt) say(this._age, `as of ${agoMs(this._pages.loadedAt)} ago`);
    const { changed } = this._live.latest;
    if (changed?.includes(this._kind.kind)) this._stale = true;
    const still = this._table.element.scrollTop === 0 && this._pages.rows.length <= 200 && !this._all.disabled;
    const due = Date.now() - this._pages.loadedAt > RELOAD_MS;
    if (this._stale && still && due && !document.hidden && !this._pages.loading && !getSelection().toString()) {
      this._stale = false;
      this._pages.begin();
    }
  }

  async _wanted() {
    if (this._pages.rows.length) await this._pages.more();
  }

  async _loadAll() {
    this._all.disabled = true;
    const values = this._values;
    while (values === this._values && (await this._pages.more()));
    this._all.disabled = false;
    this._foot();
  }

  _heard() {
    const pages = this._pages;
    if (pages.error && !pages.rows.length) replace(this._place, trouble(pages.error, () => pages.begin()));
    else if (!pages.rows.length && pages.whole) {
      const filtered = this._filters().length > 0;
      replace(this._place, filtered ? nothing("Nothing matches these filters", "Filters compare whole words and ids; case does not matter.") : nothing(this._kind.empty[0], this._kind.empty[1]));
    } else {
      if (!this._table.element.isConnected) replace(this._place, this._table.element);
      this._table.set(pages.rows, pages.next === null ? pages.rows.length : Math.max(pages.total, pages.rows.length + 1));
    }
    this._foot();
  }

  _foot() {
    const pages = this._pages;
    const filtered = this._filters().length > 0;
    const loaded = count(pages.rows.length);
    const said = [];
    if (pages.error) said.push(`not renewed: ${pages.error.message}`);
    if (pages.next === null) said.push(filtered ? `${loaded} match, of ${count(pages.total)}` : `${loaded} in all`);
    else said.push(filtered ? `${loaded} loaded; more match, of ${count(pages.total)} in all` : `${loaded} of ${count(pages.total)} loaded`);
    if (this._table.sorting && pages.next !== null) said.push("sorted within what is loaded");
    if (pages.expired) said.push("too long ago to go on with: refresh it");
    if (pages.full && pages.next !== null) said.push(`no more than ${count(ROWS_MAX)} are kept here: narrow the filters`);
    if (pages.dropped) said.push(`of ${count(pages.dropped)} that have ended only the number is known`);
    if (pages.unlisted) said.push(`${count(pages.unlisted)} unfinished ones are known to their programs and nodes alone`);
    say(this._count, said.join(" \u00b7 "));
    this._all.hidden = pages.next === null || pages.full || pages.expired;
    say(this._all, this._all.disabled ? "Loading \u2026" : "Load all");
  }
}

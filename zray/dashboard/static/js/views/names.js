/* All tasks by name: how many are in which state, also those of which only the number is known. */

import { get, isAborted } from "../api.js";
import { el, icon, replace, say } from "../parts/elements.js";
import { count, stateWords } from "../parts/format.js";
import { nothing, trouble } from "../parts/things.js";
import { VirtualTable } from "../parts/virtual_table.js";
import { link } from "../router.js";

const RELOAD_MS = 3000;
const WAITING = ["PENDING_ARGS_AVAIL", "PENDING_NODE_ASSIGNMENT", "SUBMITTED_TO_WORKER"];

export class NamesView {
  constructor({ live, signal }) {
    this.title = "Tasks by name";
    this._signal = signal;
    this._said = el("span", { role: "status" });
    const many = (name, title, from, read) => ({ name, title, width: "92px", from, number: true, sort: read, text: (row) => (read(row) ? count(read(row)) : "") });
    const state = (name) => (row) => row.states[name] ?? 0;
    this._table = new VirtualTable({
      label: "Tasks by name",
      open: (row) => (location.hash = link("tasks", "", { name: row.name })),
      columns: [
        { name: "name", title: "Name", width: "minmax(120px, 2fr)", sort: (row) => row.name, text: (row) => row.name, href: (row) => link("tasks", "", { name: row.name }) },
        { name: "type", title: "Type", width: "minmax(100px, 1fr)", from: 720, soft: true, sort: (row) => row.type, text: (row) => stateWords(row.type) },
        many("waiting", "Waiting", 420, (row) => WAITING.reduce((sum, one) => sum + state(one)(row), 0)),
        many("running", "Running", 520, state("RUNNING")),
        many("failed", "Failed", 0, state("FAILED")),
        many("finished", "Finished", 0, state("FINISHED")),
      ],
    });
    signal.addEventListener("abort", () => this._table.close());
    this._place = el("div", null, this._table.element);
    this.element = el(
      "div",
      { class: "stack" },
      el("nav", { class: "trail", "aria-label": "Where this is" }, el("a", { href: link("tasks") }, "Tasks"), el("span", { "aria-hidden": "true" }, "/"), el("span", null, "by name")),
      el("div", { class: "head-line" }, el("h1", { tabindex: "-1" }, "Tasks by name"), el("div", { class: "actions" }, el("button", { type: "button", class: "button small", onclick: () => this.load() }, icon("refresh"), "Refresh"))),
      el("section", { class: "card", "aria-label": "Tasks by name" }, this._place, el("div", { class: "table-foot" }, this._said)),
    );
    live.addEventListener("overview", () => Date.now() - this._at > RELOAD_MS && !document.hidden && this._table.element.scrollTop === 0 && this.load(), { signal });
    live.addEventListener("state", () => live.state === "live" && this.load(), { signal });
    this.load();
  }

  async load() {
    if (this._loading) return;
    this._loading = true;
    try {
      const { summary } = await get(["tasks", "summary"], {}, this._signal);
      const rows = Object.entries(summary.summary).map(([id, one]) => ({ id, name: one.func_or_class_name, type: one.type, states: one.state_counts }));
      if (rows.length && !this._table.element.isConnected) replace(this._place, this._table.element);
      if (rows.length) this._table.set(rows, rows.length);
      else replace(this._place, nothing("No tasks yet", "They appear here as soon as a program submits some."));
      const said = [`${count(rows.length)} names`, "attempts since the head\u2019s start"];
      if (summary.total_unlisted) said.push(`${count(summary.total_unlisted)} unfinished ones are known to their programs and nodes alone`);
      say(this._said, said.join(" \u00b7 "));
    } catch (error) {
      if (!isAborted(error)) replace(this._place, trouble(error, () => this.load()));
    }
    this._loading = false;
    this._at = Date.now();
  }
}

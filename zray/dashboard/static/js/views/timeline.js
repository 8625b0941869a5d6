/* What has run lately, on which worker, and when; and what took longest, as a table. */

import { get, isAborted } from "../api.js";
import { el, icon, replace, say } from "../parts/elements.js";
import { clock, count, seconds } from "../parts/format.js";
import { Lanes } from "../parts/lanes.js";
import { card, nothing, thingLink, trouble } from "../parts/things.js";
import { link } from "../router.js";

const LONGEST = 10;
// Dark enough for white words on each of them, told apart also by lightness; a name always has the same one.
const COLOURS = ["#2450d3", "#0b6e77", "#8a5300", "#6b3fa0", "#19703f", "#a0325f", "#4d5a6a", "#b3261e"];

export class TimelineView {
  constructor({ signal }) {
    this.title = "Timeline";
    this._signal = signal;
    this._said = el("span", { role: "status" });
    this._under = el("span", { class: "end" });
    this._lanes = new Lanes({ label: "Timeline: plus and minus zoom, arrow keys move, 0 shows all. The table below has the longest.", chosen: (span) => span.id && (location.hash = link("tasks", span.id)), pointed: (span) => say(this._under, span ? `${span.name}: ${seconds(span.to - span.from)} at ${clock(span.from * 1000)}` : ""), signal });
    this._longest = el("div");
    const tool = (words, act) => el("button", { type: "button", class: "button small", onclick: act }, words);
    this._place = el("div", null, this._lanes.element);
    this.element = el(
      "div",
      { class: "stack" },
      el("div", { class: "head-line" }, el("h1", { tabindex: "-1" }, "Timeline"), el("div", { class: "actions" }, tool("Zoom in", () => this._lanes.zoom(0.6)), tool("Zoom out", () => this._lanes.zoom(1.6)), tool("Show all", () => this._lanes.fit()), tool([icon("refresh"), "Refresh"], () => this.load()))),
      el("section", { class: "card", "aria-label": "Timeline" }, this._place, el("div", { class: "table-foot" }, this._said, this._under)),
      this._longest,
    );
    this.load();
  }

  async load() {
    say(this._said, "Asking the nodes \u2026");
    try {
      const told = await get(["timeline"], {}, this._signal, 60_000);
      this._show(told);
    } catch (error) {
      if (!isAborted(error)) replace(this._place, trouble(error, () => this.load()));
    }
  }

  _show({ traceEvents, silent }) {
    const lanes = new Map();
    const spans = [];
    for (const event of traceEvents) {
      if (event.ph !== "X") continue;
      const key = `${event.pid} ${event.tid}`;
      if (!lanes.has(key)) lanes.set(key, { name: laneName(event), spans: [] });
      const span = { from: event.ts / 1e6, to: (event.ts + event.dur) / 1e6, name: String(event.name), id: event.args?.task_id ?? "", colour: colourOf(String(event.name)) };
      lanes.get(key).spans.push(span);
      spans.push(span);
    }
    const sorted = [...lanes.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const lane of sorted) lane.spans.sort((a, b) => a.from - b.from);
    const said = [`${count(spans.length)} tasks and calls on ${count(sorted.length)} lanes`];
    if (silent?.length) said.push(`no answer from ${silent.join(", ")}`);
    said.push("workers remember their last 1,000");
    say(this._said, said.join(" \u00b7 "));
    if (!spans.length) return void replace(this._place, nothing("Nothing has run lately", "Workers remember what they have run until they end."));
    if (!this._lanes.element.isConnected) replace(this._place, this._lanes.element);
    this._lanes.set(sorted);
    const longest = spans.sort((a, b) => b.to - b.from - (a.to - a.from)).slice(0, LONGEST);
    const rows = longest.map((span) => el("tr", null, el("td", null, span.id ? thingLink("tasks", span.id, span.name) : span.name), el("td", { class: "number" }, clock(span.from * 1000)), el("td", { class: "number" }, seconds(span.to - span.from))));
    const heads = ["Name", "Began", "Took"].map((one, i) => el("th", { scope: "col", class: i ? "number" : null }, one));
    replace(this._longest, card("Took longest", el("div", { class: "plain-wrap" }, el("table", { class: "plain" }, el("thead", null, el("tr", null, heads)), el("tbody", null, rows))), { padded: false }));
  }
}

function laneName(event) {
  const worker = /^worker:([0-9a-f]+)$/.exec(event.tid);
  return `${String(event.pid).replace(/^Node /, "").replace(/ \([^)]*\)$/, "")} \u00b7 ${worker ? `\u2026${worker[1].slice(-4)}` : event.tid}`;
}

function colourOf(name) {
  let sum = 0;
  for (let i = 0; i < name.length; i++) sum = (sum * 31 + name.charCodeAt(i)) >>> 0;
  return COLOURS[sum % COLOURS.length];
}

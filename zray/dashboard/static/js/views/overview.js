/* The first view: how the cluster is, what it does, what waits and why, what has happened last. */

import { Chart } from "../parts/chart.js";
import { el, replace, say } from "../parts/elements.js";
import { amount, bytes, clock, count, short, stateWords } from "../parts/format.js";
import { card, nothing, thingLink } from "../parts/things.js";
import { measuredOf, watchUsage } from "../parts/usage.js";
import { get, isAborted } from "../api.js";
import { link } from "../router.js";
import { SOURCES } from "./kinds.js";

const NEWS = 12;
const used = (name) => (sample) => sample.resources?.[name]?.[0];
const whole = (name) => (sample) => sample.resources?.[name]?.[1];

export class OverviewView {
  constructor({ live, signal }) {
    this.title = "Overview";
    this._live = live;
    this._signal = signal;
    this._tiles = Object.fromEntries(TILES.map((one) => [one.name, tile(one)]));
    this._health = el("span", { class: "chip" }, "\u2026");
    this._about = el("span", { class: "soft small" });
    this._reasons = el("ul", { class: "reasons" });
    this._news = el("ul", { class: "happenings" });
    this._events = [];
    const chart = (title, words, series, least) => new Chart({ title, words, series, least, signal });
    this._charts = [
      chart("Throughput", (value) => `${short(value)}/s`, [
        { label: "finished", colour: "--chart-1", value: (s) => s.tasks.finished_per_s, fill: true },
        { label: "failed", colour: "--chart-4", value: (s) => s.tasks.failed_per_s },
      ], 4),
      chart("Tasks", short, [
        { label: "running", colour: "--chart-1", value: (s) => s.tasks.running, fill: true },
        { label: "queued", colour: "--chart-3", value: (s) => s.tasks.queued },
        { label: "waiting", colour: "--chart-2", value: (s) => s.tasks.waiting },
      ], 4),
      chart("CPU", (value) => amount(Math.round(value * 10) / 10), [
        { label: "reserved", colour: "--chart-1", value: used("CPU"), fill: true },
        { label: "total", colour: "--chart-3", value: whole("CPU"), dash: [4, 4] },
      ]),
      chart("Object store", bytes, [
        { label: "in use", colour: "--chart-1", value: (s) => s.measured?.store, fill: true },
        { label: "total", colour: "--chart-3", value: (s) => s.measured?.capacity, dash: [4, 4] },
      ], 1024),
    ];
    this._waiting = card("What waits, and why", this._reasons, { padded: false, end: el("a", { class: "small", href: link("tasks", "", { state: "PENDING_NODE_ASSIGNMENT" }) }, "Waiting tasks") });
    const happened = card("What has happened", this._news, { padded: false, end: el("a", { class: "small", href: link("events") }, "All events") });
    this.element = el(
      "div",
      { class: "stack" },
      el("div", { class: "head-line" }, el("h1", { tabindex: "-1" }, "Overview"), this._health, this._about),
      el("div", { class: "tiles" }, Object.values(this._tiles).map((one) => one.element)),
      el(
        "div",
        { class: "two-thirds" },
        el("div", { class: "stack" }, this._waiting, el("div", { class: "columns" }, this._charts.map((one) => one.element))),
        happened,
      ),
    );
    live.addEventListener("overview", () => this._show(), { signal });
    live.addEventListener("samples", () => this._draw(), { signal });
    live.addEventListener("state", () => live.state === "live" && this._load(), { signal });
    this._load();
    watchUsage((found) => (this._measured = measuredOf(found)), signal);
    if (live.latest) this._show();
  }

  async _load() {
    try {
      const told = await get(["events"], { limit: NEWS }, this._signal);
      this._events = told.items;
      this._happened();
    } catch (error) {
      if (!isAborted(error) && !this._events.length) replace(this._news, nothing("Not known just now"));
    }
  }

  _draw() {
    for (const chart of this._charts) chart.set(this._live.samples);
  }

  _show() {
    const told = this._live.latest;
    told.measured = this._measured;
    const healthy = told.up && told.health === "OK";
    this._health.dataset.tone = healthy ? "ok" : told.up ? "wait" : "bad";
    const [state, ...more] = String(told.health ?? "").split(": ");
    say(this._health, !told.up ? "Head is away" : healthy ? "Healthy" : stateWords(state));
    const session = this._live.session;
    say(this._about, healthy || !more.length ? `Cluster ${session?.cluster ?? ""}` : more.join(": "));
    for (const one of TILES) show(this._tiles[one.name], one.read(told));
    this._queue(told.queue ?? [], told.groups?.waiting ?? 0);
    if (told.events?.length) {
      this._events = [...told.events.toReversed(), ...this._events].slice(0, NEWS);
      this._happened();
    }
    if (!document.hidden) this._draw();
  }

  _queue(queue, groups) {
    const key = JSON.stringify([queue, groups]);
    if (key === this._queueKey) return;
    this._queueKey = key;
    if (!queue.length && !groups) replace(this._reasons, el("li", { class: "nothing" }, el("strong", null, "Nothing waits"), "Every task that is known to the head runs or is over."));
    else
      replace(
        this._reasons,
        groups ? el("li", null, el("span", { class: "many" }, short(groups)), el("div", null, el("a", { href: link("placement_groups") }, groups === 1 ? "placement group" : "placement groups"), el("div", { class: "soft" }, "without a place for all bundles"))) : null,
        queue.map((one) =>
          el(
            "li",
            null,
            el("span", { class: "many" }, short(one.waiting)),
            el("div", null, one.task ? el("a", { href: link("tasks", "", { name: one.task }) }, one.task) : "tasks", reasonLine(one.reason)),
          ),
        ),
      );
  }

  _happened() {
    if (!this._events.length) return void replace(this._news, el("li", { class: "nothing" }, "Nothing yet"));
    replace(
      this._news,
      this._events.map((one) => {
        const subject = one.custom_fields?.subject;
        const kind = SOURCES[one.source_type];
        return el(
          "li",
          null,
          el("time", { datetime: new Date(Number(one.time) * 1000).toISOString() }, clock(Number(one.time) * 1000)),
          el("div", null, kind && subject ? [thingLink(kind, subject, stateWords(one.source_type)), " "] : null, el("span", { class: "clamp" }, one.message)),
        );
      }),
    );
  }
}

const sum = (figures) => Object.values(figures ?? {}).reduce((all, one) => all + one, 0);
const TILES = [
  { name: "Throughput", href: link("tasks"), read: (s) => ({ value: short(s.tasks.finished_per_s), unit: "/s", note: `${short(s.tasks.finished)} ended` }) },
  { name: "Running", href: link("tasks", "", { state: "RUNNING" }), read: (s) => ({ value: short(s.tasks.running), note: `${count(s.tasks.queued)} queued` }) },
  { name: "Waiting", href: link("tasks", "", { state: "PENDING_NODE_ASSIGNMENT" }), read: (s) => ({ value: short(s.tasks.waiting), note: s.tasks.waiting ? "see why below" : "nothing waits", tone: s.tasks.waiting ? "wait" : "" }) },
  { name: "Failed", href: link("tasks", "", { state: "FAILED" }), read: (s) => ({ value: short(s.tasks.failed), note: "since the start", tone: s.tasks.failed ? "bad" : "" }) },
  { name: "CPU reserved", href: link("nodes"), read: (s) => ({ value: amount(Math.round((used("CPU")(s) ?? 0) * 10) / 10), unit: `of ${amount(whole("CPU")(s) ?? 0)}`, note: whole("GPU")(s) ? `GPU ${amount(used("GPU")(s))} of ${amount(whole("GPU")(s))}` : "no GPU" }) },
  { name: "Nodes", href: link("nodes"), read: (s) => ({ value: short(s.nodes.alive), note: sum(s.nodes) > s.nodes.alive ? words(s.nodes) : "all alive", tone: s.nodes.suspect ? "wait" : "" }) },
  { name: "Actors", href: link("actors"), read: (s) => ({ value: short(s.actors.alive), note: s.actors.other ? `${count(s.actors.other)} not alive` : "alive" }) },
  { name: "Objects", href: link("objects"), read: (s) => ({ value: short(s.objects), note: `${bytes(s.measured?.store ?? NaN)} stored` }) },
];

/** A reason begins with its code. */
function reasonLine(reason) {
  const [, code, text] = /^([A-Z_]+): (.*)$/s.exec(reason) ?? [null, "", reason];
  return el("div", { class: "soft" }, code ? [el("span", { class: "code" }, code), " "] : null, text);
}

function words(nodes) {
  return Object.entries(nodes).filter(([name, many]) => name !== "alive" && many).map(([name, many]) => `${count(many)} ${name}`).join(", ");
}

function tile({ name, href }) {
  const [value, unit, note] = [el("span"), el("span", { class: "unit" }), el("span", { class: "note" })];
  return { element: el("a", { class: "tile", href }, el("span", { class: "name" }, name), el("span", { class: "value" }, value, " ", unit), note), value, unit, note };
}

function show(parts, { value, unit = "", note = "", tone = "" }) {
  say(parts.value, value);
  say(parts.unit, unit);
  say(parts.note, note);
  parts.element.dataset.tone = tone;
}

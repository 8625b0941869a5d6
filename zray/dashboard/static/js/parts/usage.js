/* What machines and processes use just now, asked again and again while a view shows it. */

import { get, isAborted } from "../api.js";
import { showStack } from "./dialogs.js";
import { el, replace } from "./elements.js";
import { bytes, stateWords } from "./format.js";
import { card, gauge, thingLink } from "./things.js";

const EACH_MS = 3000;
const PROCESSES_MAX = 64;

const percent = (value) => (Number.isFinite(value) ? `${Math.round(value)} %` : "\u2013");

/** Calls heard(items by node id) after each answer, until the signal. */
export function watchUsage(heard, signal) {
  let timer = 0;
  const ask = async () => {
    if (!document.hidden) {
      try {
        const told = await get(["usage"], {}, signal);
        heard(new Map(told.items.map((one) => [one.node_id, one])));
      } catch (error) {
        if (isAborted(error)) return; // others are said by the notices of the page
      }
    }
    if (!signal.aborted) timer = setTimeout(ask, EACH_MS);
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  ask();
}

/** Of all nodes together: bytes of the object stores in use and in all. */
export function measuredOf(items) {
  const sum = { store: 0, capacity: 0 };
  for (const one of items.values()) {
    sum.store += one.store?.used_bytes ?? 0;
    sum.capacity += one.store?.capacity_bytes ?? 0;
  }
  return sum;
}

/** Gauges of a machine: CPU time, memory, object store. */
export function usageGauges(usage) {
  if (!usage) return [];
  const busy = usage.cpu_percent;
  return [
    Number.isFinite(busy) ? gauge("CPU busy", busy / 100, usage.cpus, (value) => (Math.round(value * 10) / 10).toString()) : null,
    gauge("Memory used", usage.memory_used_bytes, usage.memory_bytes, bytes, true),
    usage.store?.capacity_bytes ? gauge("Object store used", usage.store.used_bytes, usage.store.capacity_bytes, bytes, true) : null,
  ];
}

/** The card of a node's processes; update(usage) renews it. */
export class ProcessesCard {
  constructor() {
    this._place = el("div", { class: "plain-wrap", tabindex: "0", role: "region", "aria-label": "Processes" });
    this.element = card("Processes", this._place, { padded: false });
    this.element.hidden = true;
  }

  update(usage) {
    this.element.hidden = !usage?.processes?.length;
    if (this.element.hidden || this._place.contains(document.activeElement)) return;
    const found = usage.processes.toSorted((a, b) => (b.cpu_percent ?? 0) - (a.cpu_percent ?? 0) || b.rss_bytes - a.rss_bytes);
    const heads = ["Process", "What", "CPU", "Memory", ""].map((one, i) => el("th", { scope: "col", class: i === 2 || i === 3 ? "number" : null }, one || el("span", { class: "unseen" }, "Stack")));
    const rows = found.slice(0, PROCESSES_MAX).map((one) => {
      const name = `pid ${one.pid}`;
      const subject = one.kind === "WORKER" ? one.worker_id : one.kind === "HEAD" ? "head" : usage.node_id;
      return el(
        "tr",
        null,
        el("td", null, one.worker_id && one.kind === "WORKER" ? thingLink("workers", one.worker_id, name) : name),
        el("td", null, one.title || stateWords(one.kind), one.actor_id ? [" ", thingLink("actors", one.actor_id, "actor")] : null),
        el("td", { class: "number" }, percent(one.cpu_percent)),
        el("td", { class: "number" }, bytes(one.rss_bytes)),
        el("td", { class: "number" }, el("button", { type: "button", class: "button small", "aria-label": `Stack of ${name}`, onclick: () => showStack(subject, name) }, "Stack")),
      );
    });
    replace(this._place, el("table", { class: "plain" }, el("thead", null, el("tr", null, heads)), el("tbody", null, rows)), found.length > PROCESSES_MAX || usage.left_out ? el("p", { class: "table-foot" }, `and ${found.length - Math.min(found.length, PROCESSES_MAX) + (usage.left_out || 0)} more`) : null);
  }
}

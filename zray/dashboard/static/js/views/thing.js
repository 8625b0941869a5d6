/* The view of one thing: what it is, why it is so, what hangs together with it, and what can be done. */

import { ApiError, get, isAborted } from "../api.js";
import { showStack, confirmDrain, confirmKill } from "../parts/dialogs.js";
import { PictureCard } from "../parts/dependency_picture.js";
import { el, replace, shown } from "../parts/elements.js";
import { agoMs, amount, amounts, bytes, count, day, seconds, shortId, stateWords } from "../parts/format.js";
import { card, chip, facts, gauge, nothing, thingLink, trouble, wholeId } from "../parts/things.js";
import { phases } from "../parts/phases.js";
import { related } from "../parts/related.js";
import { ProcessesCard, usageGauges, watchUsage } from "../parts/usage.js";
import { WhyCard } from "../parts/why.js";
import { link } from "../router.js";
import { bundleTotals } from "./kinds.js";

const RELOAD_MS = 2000;
const OVER = new Set(["FINISHED", "FAILED", "DEAD", "SUCCEEDED", "STOPPED", "REMOVED"]);
const lasted = (from, to) => (from ? seconds(((to || Date.now()) - from) / 1000) : "");
const act = (words, run, danger = false) => el("button", { type: "button", class: `button ${danger ? "danger" : ""}`, onclick: run }, words);
const logs = (subject) => el("a", { class: "button", href: link("logs", subject) }, "Log");

/** By kind: state, name, facts, actions and lists of what belongs to it. */
const THINGS = {
  tasks: {
    one: "task",
    name: (r) => r.name,
    state: (r) => r.state,
    facts: (r, live) => [
      ["Id", wholeId(r.task_id)],
      ["Attempt", count(r.attempt_number)],
      ["Type", stateWords(r.type)],
      ["Job", thingLink("jobs", r.job_id)],
      ["Actor", r.actor_id ? thingLink("actors", r.actor_id) : null],
      ["Node", r.node_id ? thingLink("nodes", r.node_id, live.nodeName(r.node_id)) : null],
      ["Worker", r.worker_id ? thingLink("workers", r.worker_id, r.worker_pid ? `pid ${r.worker_pid}` : undefined) : null],
      ["Needs", amounts(r.required_resources)],
      ["Started", r.start_time_ms ? day(r.start_time_ms) : null],
      ["Ran for", lasted(r.start_time_ms, r.end_time_ms)],
      ["Error", r.error_type],
      ["Code", r.error_code],
      ["Error says", r.error_message ? el("pre", { tabindex: "0" }, r.error_message) : null],
    ],
    actions: (r, done) => [
      r.state === "RUNNING" ? act("Stack", () => showStack(r.task_id, r.name)) : null,
      r.worker_id || r.node_id ? logs(r.task_id) : null,
      OVER.has(r.state) ? null : act("Kill", () => confirmKill("task", r.task_id, r.name, done), true),
    ],
    related: (r) => [{ kind: "tasks", title: "Submitted by it", filter: { parent_task_id: r.task_id } }],
  },
  actors: {
    one: "actor",
    name: (r) => r.name || r.class_name,
    state: (r) => r.state,
    facts: (r, live) => [
      ["Id", wholeId(r.actor_id)],
      ["Class", r.class_name],
      ["Name", r.name],
      ["Namespace", r.name ? r.ray_namespace : null],
      ["Job", thingLink("jobs", r.job_id)],
      ["Node", r.node_id ? thingLink("nodes", r.node_id, live.nodeName(r.node_id)) : null],
      ["Worker", r.worker_id ? thingLink("workers", r.worker_id, r.pid ? `pid ${r.pid}` : undefined) : null],
      ["Needs", amounts(r.required_resources)],
      ["Lifetime", r.is_detached ? "detached" : "with its last handle"],
      ["Restarts", count(r.num_restarts)],
      ["Started", r.start_time_ms ? day(r.start_time_ms) : null],
      ["Ended", r.end_time_ms ? day(r.end_time_ms) : null],
      ["Death", r.death_cause?.error_message ? el("pre", { tabindex: "0" }, r.death_cause.error_message) : null],
    ],
    actions: (r, done) => [
      r.state === "ALIVE" ? act("Stack", () => showStack(r.actor_id, r.class_name)) : null,
      r.worker_id ? logs(r.actor_id) : null,
      OVER.has(r.state) ? null : act("Kill", () => confirmKill("actor", r.actor_id, r.name || r.class_name, done), true),
    ],
    related: (r) => [{ kind: "tasks", title: "Its calls", filter: { actor_id: r.actor_id } }],
  },
  objects: {
    one: "object",
    name: (r) => shortId(r.object_id),
    state: (r) => r.state,
    facts: (r, live) => [
      ["Id", wholeId(r.object_id)],
      ["Size", bytes(r.object_size)],
      ["Made by", thingLink("tasks", r.object_id.slice(0, 32))],
      ["Task is", r.task_status ? stateWords(r.task_status) : null],
      ["Held as", stateWords(r.reference_type)],
      ["Holders", count(r.num_holders)],
      ["One holder", r.holder_id ? [r.pid ? `${stateWords(r.type)} pid ${r.pid} on ${r.ip} ` : "", el("span", { class: "mono" }, shortId(r.holder_id))] : null],
      ["Where", r.node_ids?.length ? r.node_ids.map((one) => [thingLink("nodes", one, live.nodeName(one)), " "]) : null],
      ["Made at", r.call_site === "disabled" ? null : r.call_site],
    ],
    actions: () => [],
    related: () => [],
  },
  nodes: {
    one: "node",
    name: (r) => r.node_name,
    state: (r) => r.state,
    facts: (r) => [
      ["Id", wholeId(r.node_id)],
      ["Host", r.node_ip],
      ["Pid", r.pid ? String(r.pid) : null],
      ["Remark", r.state_message],
      ["Labels", Object.entries(r.labels ?? {}).map(([name, value]) => `${name}=${value}`).join(", ")],
      ["Running", count(r.tasks_running)],
      ["Queued", count(r.tasks_queued)],
      ["Finished", count(r.tasks_finished)],
      ["Workers", count(r.num_workers)],
      ["Up", r.start_time_ms && !r.end_time_ms ? agoMs(r.start_time_ms) : null],
      ["Ended", r.end_time_ms ? day(r.end_time_ms) : null],
    ],
    extra: (r, usage) => (r.state === "ALIVE" ? card("Resources", el("div", { class: "columns" }, resources(r.resources_total, r.resources_available, Boolean(usage)), usageGauges(usage))) : null),
    actions: (r, done) => [
      r.state === "ALIVE" ? act("Stack", () => showStack(r.node_id, `node ${r.node_name}`)) : null,
      r.state === "ALIVE" ? logs(r.node_id) : null,
      r.state === "ALIVE" && !r.is_head_node ? act("Drain", () => confirmDrain(r.node_id, r.node_name, done), true) : null,
    ],
    related: (r) => [
      { kind: "workers", title: "Workers", filter: { node_id: r.node_id, is_alive: "true" } },
      { kind: "tasks", title: "Tasks here", filter: { node_id: r.node_id } },
    ],
  },
  workers: {
    one: "worker",
    name: (r) => `${stateWords(r.worker_type)} pid ${r.pid}`,
    state: (r) => (r.is_alive ? "ALIVE" : "DEAD"),
    facts: (r, live) => [
      ["Id", wholeId(r.worker_id)],
      ["Pid", String(r.pid)],
      ["Host", r.ip],
      ["Node", r.node_id ? thingLink("nodes", r.node_id, live.nodeName(r.node_id)) : null],
      ["Job", r.job_id ? thingLink("jobs", r.job_id) : null],
      ["Actor", r.actor_id ? thingLink("actors", r.actor_id) : null],
      ["Started", r.start_time_ms ? day(r.start_time_ms) : null],
      ["Ended", r.end_time_ms ? day(r.end_time_ms) : null],
      ["How it ended", [r.exit_type, r.exit_detail].filter(Boolean).join(": ")],
    ],
    actions: (r, done) =>
      r.worker_type === "DRIVER"
        ? []
        : [
            r.is_alive ? act("Stack", () => showStack(r.worker_id, `pid ${r.pid}`)) : null,
            logs(r.worker_id),
            r.is_alive ? act("Kill", () => confirmKill("worker", r.worker_id, `pid ${r.pid}`, done), true) : null,
          ],
    related: (r) => (r.worker_type === "DRIVER" ? [] : [{ kind: "tasks", title: "Tasks in it", filter: { worker_id: r.worker_id } }]),
  },
  jobs: {
    one: "job",
    name: (r) => r.entrypoint || `job ${r.job_id.slice(0, 8)}`,
    state: (r) => r.status,
    facts: (r) => [
      ["Id", wholeId(r.job_id)],
      ["Program", r.entrypoint],
      ["Submission", r.submission_id],
      ["User", r.user],
      ["Where", r.driver_info ? `pid ${r.driver_info.pid} on ${r.driver_info.node_ip_address}` : null],
      ["Connected", r.is_connected ? "yes" : "no"],
      ["Unfinished tasks", count(r.tasks_unfinished)],
      ["Finished tasks", count(r.tasks_finished)],
      ["Started", r.start_time ? day(r.start_time) : null],
      ["Ran for", lasted(r.start_time, r.end_time)],
      ["Says", r.message],
    ],
    actions: () => [],
    related: (r) => [
      { kind: "tasks", title: "Tasks", filter: { job_id: r.job_id } },
      { kind: "actors", title: "Actors", filter: { job_id: r.job_id } },
      { kind: "placement_groups", title: "Placement groups", filter: { creator_job_id: r.job_id } },
    ],
  },
  placement_groups: {
    one: "placement group",
    name: (r) => r.name || shortId(r.placement_group_id),
    state: (r) => r.state,
    facts: (r) => [
      ["Id", wholeId(r.placement_group_id)],
      ["Name", r.name],
      ["Strategy", stateWords(r.strategy)],
      ["Bundles", count(r.bundles.length)],
      ["In all", bundleTotals(r.bundles)],
      ["Job", thingLink("jobs", r.creator_job_id)],
      ["Lifetime", r.is_detached ? "detached" : "with its program"],
      ["Attempts", count(r.stats?.scheduling_attempt ?? 0)],
    ],
    extra: (r, _usage, live) => card("Bundles", bundleTable(r.bundles, live), { padded: false }),
    actions: () => [],
    related: () => [],
  },
};

const BUNDLES_SHOWN = 200;

/** Each bundle with what it asks for and where it is; of very many the first. */
function bundleTable(bundles, live) {
  const labelled = bundles.some((one) => Object.keys(one.label_selector ?? {}).length);
  const heads = ["Bundle", "Needs", ...(labelled ? ["Labels"] : []), "Node"];
  const cells = (one) => [
    String(one.bundle_index),
    amounts(one.unit_resources),
    ...(labelled ? [Object.entries(one.label_selector ?? {}).map(([name, value]) => `${name}=${value}`).join(", ")] : []),
    one.node_id ? thingLink("nodes", one.node_id, live.nodeName(one.node_id)) : "no place yet",
  ];
  const head = el("tr", null, heads.map((one) => el("th", { scope: "col" }, one)));
  const rows = bundles.slice(0, BUNDLES_SHOWN).map((one) => el("tr", null, cells(one).map((cell) => el("td", null, cell))));
  const more = bundles.length - rows.length;
  return el("div", { class: "plain-wrap", tabindex: "0", role: "region", "aria-label": "Bundles" }, el("table", { class: "plain" }, el("thead", null, head), el("tbody", null, rows)), more > 0 ? el("p", { class: "nothing" }, `and ${count(more)} more`) : null);
}

/** Gauges of what is reserved on a node, of these amounts in all and free. `measured`: its object store is shown otherwise. */
export function resources(total, free, measured = false) {
  return Object.entries(total ?? {})
    // Hardly a task asks for memory: it is shown where one does.
    .filter(([name, value]) => (name === "memory" ? free?.[name] < value : value > 0) && !name.startsWith("node:") && !(measured && name === "object_store_memory"))
    .map(([name, value]) => gauge(`${NAMES[name] ?? name} reserved`, value - (free?.[name] ?? 0), value, /memory/.test(name) ? bytes : amount));
}
const NAMES = { memory: "Memory", object_store_memory: "Object store" };

export class ThingView {
  constructor(kind, { live, route, signal }) {
    this._thing = THINGS[kind];
    this._kind = kind;
    this._id = route.id;
    this._live = live;
    this._signal = signal;
    this.title = `${stateWords(this._thing.one.toUpperCase())} ${shortId(route.id)}`;
    this._name = el("h1", { tabindex: "-1" }, shortId(route.id));
    this._chip = el("span");
    this._actions = el("div", { class: "actions" });
    this._facts = el("div");
    this._extra = el("div", { class: "stack" });
    this._related = el("div", { class: "stack" });
    this._trouble = el("div");
    this._why = new WhyCard(route.id, signal, (causes) => this._explained(causes));
    this._picture = kind === "tasks" ? new PictureCard(signal) : null;
    this._phases = el("div");
    this._processes = kind === "nodes" ? new ProcessesCard() : null;
    if (this._processes) watchUsage((found) => this._used(found.get(route.id)), signal);
    this.element = el(
      "div",
      { class: "stack" },
      el("nav", { class: "trail", "aria-label": "Where this is" }, el("a", { href: link(kind) }, stateWords(kind.toUpperCase())), el("span", { "aria-hidden": "true" }, "/"), el("span", null, this._thing.one)),
      el("div", { class: "head-line" }, this._name, this._chip, this._actions),
      this._trouble,
      el("div", { class: "two-thirds" }, el("div", { class: "stack" }, this._why.element, this._picture?.element ?? null, this._extra, this._processes?.element ?? null, this._phases, this._related), this._facts),
    );
    live.addEventListener("overview", () => this._overview(), { signal });
    live.addEventListener("state", () => live.state === "live" && this.load(), { signal });
    this.load();
  }

  _overview() {
    if (this._loading || document.hidden || this._over || Date.now() - this._loadedAt < RELOAD_MS) return;
    this.load();
  }

  async load() {
    if (this._loading) return;
    this._loading = true;
    try {
      const told = await get([this._kind, this._id], {}, this._signal);
      this._show(told.items);
      replace(this._trouble);
    } catch (error) {
      if (isAborted(error)) return;
      this._failed(error);
    } finally {
      this._loading = false;
      this._loadedAt = Date.now();
    }
    await this._why.load();
  }

  _failed(error) {
    const unknown = error instanceof ApiError && error.status === 404;
    if (unknown) this._over = true;
    const what = unknown ? nothing(`This ${this._thing.one} is not listed`, "It may be over for so long that the head has forgotten it, or known to its program alone; see why below.") : trouble(error);
    replace(this._trouble, el("div", { class: "card" }, what));
  }

  _show(items) {
    const record = items.at(-1);
    const thing = this._thing;
    const key = JSON.stringify([items, [...this._live.nodes.values()]]);
    const ended = OVER.has(thing.state(record));
    this._over = ended;
    this._why.over = thing.state(record) === "FINISHED";
    this._record = record;
    if (key === this._key && ended) return;
    if (key !== this._key || !ended) this._lists(record);
    const same = key === this._key;
    this._key = key;
    const name = shown(thing.name(record)).trim() || shortId(this._id);
    document.title = `${name} \u00b7 zray`;
    replace(this._name, name);
    replace(this._phases, this._kind === "tasks" ? phases(items) : null);
    if (same) return;
    replace(this._chip, chip(thing.state(record)));
    const focused = this._actions.contains(document.activeElement) ? document.activeElement.textContent : null;
    replace(this._actions, thing.actions(record, () => this.load()));
    if (focused) [...this._actions.children].find((one) => one.textContent === focused)?.focus();
    replace(this._facts, card("Facts", facts(thing.facts(record, this._live))));
    replace(this._extra, thing.extra?.(record, this._usage, this._live) ?? null);
  }

  _used(usage) {
    this._usage = usage;
    this._processes.update(usage);
    if (this._record) replace(this._extra, this._thing.extra(this._record, usage));
  }

  _lists(record) {
    this._lists_ ??= this._thing.related(record).map((one) => related(one, this._live, this._signal));
    if (!this._related.childElementCount) replace(this._related, this._lists_.map((one) => one.element));
    for (const one of this._lists_) one.load();
  }

  _explained(causes) {
    if (this._record && this._picture) this._picture.update(this._record, causes);
  }
}

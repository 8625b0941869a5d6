/* What lists show of each kind of things: columns, filters, and what is kept of a record. */

import { link } from "../router.js";
import { amount, amounts, bytes, clock, count, seconds, shortId, stateWords, tone } from "../parts/format.js";

const choices = (words) => words.map((word) => [word, stateWords(word)]);
const nodeFilter = (live) => ({ key: "node_id", label: "Node", options: [...live.nodes].map(([id, name]) => [id, name]) });
const ran = (row) => (row.start ? ((row.end || Date.now()) - row.start) / 1000 : null);
const linked = (kind, key) => (row) => link(kind, row[key]);

const state = { name: "state", title: "State", width: "minmax(118px, 182px)", sort: (row) => row.state, text: (row) => stateWords(row.state), tone: (row) => tone(row.state) };
const id = (kind, from = 900) => ({ name: "id", title: "Id", width: "140px", from, mono: true, sort: (row) => row.id, text: (row) => shortId(row.id) });
const node = (live, from) => ({ name: "node", title: "Node", width: "minmax(70px, 110px)", from, soft: true, sort: (row) => live.nodeName(row.node), text: (row) => live.nodeName(row.node) });
const started = (from) => ({ name: "start", title: "Started", width: "84px", from, number: true, soft: true, sort: (row) => row.start || null, text: (row) => (row.start ? clock(row.start) : "") });
const pid = (from) => ({ name: "pid", title: "Pid", width: "72px", from, number: true, soft: true, sort: (row) => row.pid, text: (row) => (row.pid ? String(row.pid) : "") });
const note = (title, from) => ({ name: "note", title, width: "minmax(160px, 3fr)", from, soft: true, sort: (row) => row.note || null, text: (row) => row.note });
const total = (amounts, name) => amounts?.[name] ?? 0;

export const KINDS = {
  tasks: {
    kind: "tasks",
    title: "Tasks",
    beside: ["By name", link("names")],
    empty: ["No tasks yet", "They appear here as soon as a program submits some."],
    pick: (r) => ({ id: r.task_id, attempt: r.attempt_number, name: r.name, state: r.state, type: r.type, job: r.job_id, node: r.node_id, pid: r.worker_pid, start: r.start_time_ms ?? 0, end: r.end_time_ms ?? 0, note: r.reason ?? (r.error_type ? `${r.error_type}: ${r.error_message ?? ""}` : "") }),
    open: (row) => link("tasks", row.id),
    extra: ["actor_id", "parent_task_id", "worker_id", "error_code"],
    filters: (live) => [
      { key: "state", label: "State", options: choices(["PENDING_ARGS_AVAIL", "PENDING_NODE_ASSIGNMENT", "SUBMITTED_TO_WORKER", "RUNNING", "FAILED", "FINISHED"]) },
      { key: "name", label: "Name", hint: "the whole name" },
      nodeFilter(live),
      { key: "job_id", label: "Job", hint: "its id" },
      { key: "type", label: "Type", options: [["NORMAL_TASK", "Task"], ["ACTOR_TASK", "Call of an actor"], ["ACTOR_CREATION_TASK", "Making of an actor"]] },
    ],
    columns: (live) => [
      { name: "name", title: "Name", width: "minmax(110px, 1.3fr)", sort: (row) => row.name, text: (row) => row.name, href: linked("tasks", "id") },
      state,
      note("Why", 640),
      { name: "ran", title: "Ran", width: "80px", from: 480, number: true, sort: ran, text: (row) => (row.start ? seconds(ran(row)) : "") },
      node(live, 780),
      pid(1120),
      started(1020),
      id("tasks", 1240),
    ],
  },
  actors: {
    kind: "actors",
    title: "Actors",
    empty: ["No actors", "They appear here as soon as a program makes one."],
    pick: (r) => ({ id: r.actor_id, name: r.class_name, called: r.name ?? "", state: r.state, node: r.node_id, pid: r.pid, job: r.job_id, restarts: r.num_restarts ?? 0, start: r.start_time_ms ?? 0, end: r.end_time_ms ?? 0, note: r.reason ?? r.death_cause?.error_message ?? "" }),
    open: (row) => link("actors", row.id),
    extra: ["worker_id"],
    filters: (live) => [
      { key: "state", label: "State", options: choices(["DEPENDENCIES_UNREADY", "PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD"]) },
      { key: "class_name", label: "Class", hint: "the whole name" },
      { key: "name", label: "Name", hint: "the whole name" },
      nodeFilter(live),
      { key: "job_id", label: "Job", hint: "its id" },
    ],
    columns: (live) => [
      { name: "name", title: "Class", width: "minmax(110px, 1fr)", sort: (row) => row.name, text: (row) => row.name, href: linked("actors", "id") },
      { name: "called", title: "Name", width: "minmax(80px, 1fr)", from: 560, sort: (row) => row.called || null, text: (row) => row.called },
      state,
      note("Why", 760),
      { name: "restarts", title: "Restarts", width: "76px", from: 900, number: true, sort: (row) => row.restarts, text: (row) => count(row.restarts) },
      node(live, 480),
      pid(980),
      started(1080),
      id("actors", 1200),
    ],
  },
  objects: {
    kind: "objects",
    title: "Objects",
    empty: ["No objects that the head knows of", "Small results that have not left their program are not listed."],
    pick: (r) => ({ id: r.object_id, size: r.object_size, state: r.state, status: r.task_status, type: r.reference_type, nodes: r.node_ids ?? [], holders: r.num_holders, pid: r.pid, host: r.ip, note: "" }),
    open: (row) => link("objects", row.id),
    filters: () => [
      { key: "state", label: "State", options: choices(["PENDING", "READY", "ERROR", "LOST"]) },
      { key: "reference_type", label: "Held as", hint: "as LOCAL_REFERENCE" },
      { key: "pid", label: "Holder's pid", hint: "a number" },
    ],
    columns: (live) => [
      { name: "id", title: "Object", width: "minmax(150px, 1fr)", mono: true, sort: (row) => row.id, text: (row) => shortId(row.id), href: linked("objects", "id") },
      state,
      { name: "size", title: "Size", width: "92px", number: true, sort: (row) => row.size, text: (row) => bytes(row.size) },
      { name: "type", title: "Held as", width: "minmax(120px, 1fr)", from: 640, soft: true, sort: (row) => row.type, text: (row) => stateWords(row.type) },
      { name: "holders", title: "Holders", width: "76px", from: 760, number: true, sort: (row) => row.holders, text: (row) => count(row.holders) },
      { name: "nodes", title: "Where", width: "minmax(90px, 1fr)", from: 900, soft: true, text: (row) => row.nodes.map((one) => live.nodeName(one)).join(", ") },
      pid(900),
    ],
  },
  nodes: {
    kind: "nodes",
    title: "All nodes",
    empty: ["No nodes", "Add one with zray-worker --address HEAD:PORT."],
    pick: (r) => ({ id: r.node_id, name: r.node_name, state: r.state, host: r.node_ip, head: r.is_head_node, total: r.resources_total, free: r.resources_available, workers: r.num_workers, running: r.tasks_running, queued: r.tasks_queued, finished: r.tasks_finished, pid: r.pid, start: r.start_time_ms ?? 0, note: r.state_message ?? "" }),
    open: (row) => link("nodes", row.id),
    filters: () => [
      { key: "state", label: "State", options: choices(["ALIVE", "DEAD"]) },
      { key: "node_name", label: "Name", hint: "the whole name" },
    ],
    columns: () => [
      { name: "name", title: "Name", width: "minmax(90px, 1fr)", sort: (row) => row.name, text: (row) => row.name, href: linked("nodes", "id") },
      state,
      { name: "cpu", title: "CPU used", width: "92px", number: true, sort: (row) => total(row.total, "CPU") - total(row.free, "CPU"), text: (row) => `${amount(total(row.total, "CPU") - total(row.free, "CPU"))} / ${amount(total(row.total, "CPU"))}` },
      { name: "running", title: "Running", width: "80px", from: 520, number: true, sort: (row) => row.running, text: (row) => count(row.running) },
      { name: "queued", title: "Queued", width: "80px", from: 620, number: true, sort: (row) => row.queued, text: (row) => count(row.queued) },
      { name: "finished", title: "Finished", width: "96px", from: 720, number: true, sort: (row) => row.finished, text: (row) => count(row.finished) },
      { name: "workers", title: "Workers", width: "80px", from: 820, number: true, sort: (row) => row.workers, text: (row) => count(row.workers) },
      { name: "host", title: "Host", width: "minmax(90px, 1fr)", from: 820, soft: true, sort: (row) => row.host, text: (row) => row.host },
      note("Remark", 1080),
    ],
  },
  workers: {
    kind: "workers",
    title: "Workers",
    empty: ["No workers", "Nodes start them when there is work."],
    pick: (r) => ({ id: r.worker_id, state: r.is_alive ? "ALIVE" : "DEAD", type: r.worker_type, node: r.node_id, pid: r.pid, host: r.ip, job: r.job_id, actor: r.actor_id, start: r.start_time_ms ?? 0, note: [r.exit_type, r.exit_detail].filter(Boolean).join(": ") }),
    open: (row) => link("workers", row.id),
    extra: ["actor_id"],
    filters: (live) => [
      { key: "is_alive", label: "State", options: [["true", "Alive"], ["false", "Dead"]] },
      nodeFilter(live),
      { key: "pid", label: "Pid", hint: "a number" },
      { key: "job_id", label: "Job", hint: "its id" },
    ],
    columns: (live) => [
      { name: "pid", title: "Process", width: "minmax(92px, 0.7fr)", sort: (row) => row.pid, text: (row) => `pid ${row.pid}`, href: linked("workers", "id") },
      { name: "type", title: "Type", width: "minmax(70px, 0.6fr)", from: 460, soft: true, sort: (row) => row.type, text: (row) => stateWords(row.type) },
      state,
      node(live),
      note("How it ended", 640),
      started(760),
      id("workers", 900),
    ],
  },
  jobs: {
    kind: "jobs",
    title: "Jobs",
    empty: ["No jobs", "A job is a program that has called zray.init(), or a command of zray job submit."],
    pick: (r) => ({ id: r.job_id, name: r.entrypoint, submission: r.submission_id ?? "", state: r.status, user: r.user ?? "", host: r.driver_info?.node_ip_address ?? "", pid: Number(r.driver_info?.pid ?? 0), connected: r.is_connected, unfinished: r.tasks_unfinished ?? 0, finished: r.tasks_finished ?? 0, start: r.start_time ?? 0, end: r.end_time ?? 0, note: r.message ?? "" }),
    open: (row) => link("jobs", row.id),
    filters: () => [
      { key: "status", label: "State", options: choices(["PENDING", "RUNNING", "SUCCEEDED", "STOPPED", "FAILED"]) },
      { key: "user", label: "User", hint: "the whole name" },
    ],
    columns: () => [
      { name: "name", title: "Program", width: "minmax(120px, 1.6fr)", sort: (row) => row.name, text: (row) => row.name || row.id, href: linked("jobs", "id") },
      state,
      { name: "submission", title: "Submission", width: "minmax(90px, 0.9fr)", from: 900, soft: true, sort: (row) => row.submission, text: (row) => row.submission },
      { name: "unfinished", title: "Unfinished", width: "92px", from: 480, number: true, sort: (row) => row.unfinished, text: (row) => count(row.unfinished) },
      { name: "finished", title: "Finished", width: "92px", from: 560, number: true, sort: (row) => row.finished, text: (row) => count(row.finished) },
      { name: "user", title: "User", width: "minmax(70px, 0.6fr)", from: 720, soft: true, sort: (row) => row.user, text: (row) => row.user },
      { name: "host", title: "Host", width: "minmax(80px, 0.8fr)", from: 860, soft: true, sort: (row) => row.host, text: (row) => row.host },
      pid(800),
      started(640),
      id("jobs", 1000),
    ],
  },
  placement_groups: {
    kind: "placement_groups",
    title: "Placement groups",
    empty: ["No placement groups", "They appear here as soon as a program reserves one with zray.util.placement_group()."],
    pick: (r) => ({ id: r.placement_group_id, name: r.name ?? "", state: r.state, strategy: r.strategy, bundles: r.bundles?.length ?? 0, placed: r.bundles?.filter((one) => one.node_id).length ?? 0, needs: bundleTotals(r.bundles), job: r.creator_job_id, detached: r.is_detached, note: r.reason ?? "" }),
    open: (row) => link("placement_groups", row.id),
    filters: () => [
      { key: "state", label: "State", options: choices(["PENDING", "CREATED", "RESCHEDULING", "REMOVED"]) },
      { key: "name", label: "Name", hint: "the whole name" },
      { key: "creator_job_id", label: "Job", hint: "its id" },
    ],
    columns: () => [
      { name: "name", title: "Group", width: "minmax(100px, 1fr)", sort: (row) => row.name || row.id, text: (row) => row.name || shortId(row.id), href: linked("placement_groups", "id") },
      state,
      note("Why", 560),
      { name: "placed", title: "Placed", width: "84px", from: 420, number: true, sort: (row) => row.placed / Math.max(1, row.bundles), text: (row) => `${count(row.placed)} / ${count(row.bundles)}` },
      { name: "needs", title: "In all", width: "minmax(90px, 1fr)", from: 820, soft: true, text: (row) => row.needs },
      { name: "strategy", title: "Strategy", width: "128px", from: 900, soft: true, sort: (row) => row.strategy, text: (row) => stateWords(row.strategy) },
      id("placement_groups", 1100),
    ],
  },
  events: {
    kind: "events",
    title: "Events",
    empty: ["Nothing has happened yet", "Nodes that come and go, workers that die and the like are told here."],
    pick: (r) => ({ id: r.event_id, at: Number(r.time) * 1000, state: r.severity, source: r.source_type, label: r.custom_fields?.label ?? "", subject: r.custom_fields?.subject ?? "", message: r.message }),
    open: (row) => (row.subject && row.source in SOURCES ? link(SOURCES[row.source], row.subject) : link("events")),
    extra: ["subject"],
    filters: () => [
      { key: "severity", label: "Severity", options: choices(["INFO", "WARNING", "ERROR"]) },
      { key: "source_type", label: "Of", options: choices(["NODE", "WORKER", "ACTOR", "TASK", "JOB", "PLACEMENT_GROUP", "HEAD"]) },
    ],
    columns: () => [
      { name: "at", title: "Time", width: "84px", sort: (row) => row.at, text: (row) => clock(row.at) },
      { name: "severity", title: "Severity", width: "104px", sort: (row) => row.state, text: (row) => stateWords(row.state), tone: (row) => tone(row.state) },
      { name: "source", title: "Of", width: "76px", from: 620, soft: true, sort: (row) => row.source, text: (row) => stateWords(row.source) },
      { name: "message", title: "What", width: "minmax(140px, 4fr)", text: (row) => row.message },
    ],
  },
};

/** What all bundles of a group ask for together, in words. */
export function bundleTotals(bundles) {
  const all = {};
  for (const { unit_resources } of bundles ?? []) for (const [name, value] of Object.entries(unit_resources)) all[name] = (all[name] ?? 0) + value;
  return amounts(all);
}

const SOURCES = { NODE: "nodes", WORKER: "workers", ACTOR: "actors", TASK: "tasks", JOB: "jobs", PLACEMENT_GROUP: "placement_groups" };
export { SOURCES };

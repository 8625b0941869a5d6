/* Numbers, times and states in the words of the page. */

const COUNT = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const NONE = "\u2013";

export function count(value) {
  return Number.isFinite(value) ? COUNT.format(Math.round(value)) : NONE;
}

export function short(value) {
  if (!Number.isFinite(value)) return NONE;
  return Math.abs(value) < 10 && !Number.isInteger(value) ? value.toFixed(1) : SHORT.format(value);
}

/** Amounts of resources: 4, 0.5. */
export function amount(value) {
  return Number.isFinite(value) ? String(Math.round(value * 1000) / 1000) : NONE;
}

/** Amounts by resource: CPU 4, memory 2 GiB. */
export function amounts(found) {
  return Object.entries(found ?? {}).map(([name, value]) => `${name} ${/memory/.test(name) ? bytes(value) : amount(value)}`).join(", ");
}

export function bytes(value) {
  if (!Number.isFinite(value) || value < 0) return NONE;
  let unit = 0;
  while (value >= 1024 && unit < 5) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit]}`;
}

/** A duration in seconds. */
export function seconds(value) {
  if (!Number.isFinite(value) || value < 0) return NONE;
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 90) return `${whole} s`;
  if (whole < 5400) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** Milliseconds since 1970 as a time of day. */
export function clock(ms) {
  return ms ? CLOCK.format(ms) : NONE;
}

/** The same with its day. */
export function day(ms) {
  return ms ? DAY.format(ms) : NONE;
}

export function agoMs(ms) {
  return ms ? seconds(Math.max(0, (Date.now() - ms) / 1000)) : NONE;
}

const TONES = {
  RUNNING: "run", FINISHED: "ok", FAILED: "bad", ALIVE: "ok", DEAD: "bad", SUSPECT: "wait", READY: "ok", ERROR: "bad", LOST: "bad",
  PENDING: "wait", PENDING_ARGS_AVAIL: "wait", PENDING_NODE_ASSIGNMENT: "wait", SUBMITTED_TO_WORKER: "wait", PENDING_CREATION: "wait",
  DEPENDENCIES_UNREADY: "wait", RESTARTING: "wait", SUCCEEDED: "ok", STOPPED: "calm", WARNING: "wait", INFO: "calm", DRAINING: "wait",
  CREATED: "ok", RESCHEDULING: "wait", REMOVED: "calm",
};
const WORDS = {
  PENDING_ARGS_AVAIL: "Waits for arguments", PENDING_NODE_ASSIGNMENT: "Waits for a node", SUBMITTED_TO_WORKER: "Sent to a worker",
  PENDING_CREATION: "Being made", DEPENDENCIES_UNREADY: "Waits for arguments",
};

/** How a state looks: run, ok, wait, bad or calm. */
export function tone(state) {
  return TONES[state] ?? "calm";
}

/** How the code of a cause looks. */
export function causeTone(code) {
  if (/FAIL|DEAD|LOST|CANCEL|ERROR|DIED|NO_ANSWER/.test(code)) return "bad";
  if (/RUNNING|LEASED|DRIVER|ALIVE/.test(code)) return "run";
  if (/FINISHED|READY|DONE|SUCCEEDED|CREATED/.test(code)) return "ok";
  return "wait";
}

/** A state in words: "Waits for a node"; others as they are, with a capital. */
export function stateWords(state) {
  if (!state) return NONE;
  return WORDS[state] ?? state.charAt(0) + state.slice(1).toLowerCase().replaceAll("_", " ");
}

/** The beginning and the end of an id: what tells ids of one process apart is at the end; of an object also which of
    its task's values it is. */
export function shortId(id) {
  if (!id) return NONE;
  if (id.length === 40) return `${id.slice(0, 6)}\u2026${id.slice(26, 32)}.${parseInt(id.slice(32), 16)}`;
  return id.length <= 14 ? id : `${id.slice(0, 6)}\u2026${id.slice(-6)}`;
}

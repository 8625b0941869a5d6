/* Which logs there are, and one of them as it grows. */

import { address, ApiError, get, isAborted } from "../api.js";
import { el, icon, replace, say, shown } from "../parts/elements.js";
import { agoMs, bytes, count } from "../parts/format.js";
import { nothing, trouble } from "../parts/things.js";
import { VirtualTable } from "../parts/virtual_table.js";
import { link } from "../router.js";

const LINES_MAX = 2000; // kept on the page
const BATCH = 120; // lines put in at once
const LINE_MAX = 4000; // characters of a line that are shown
const ANSI = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_])/g;

const nameOf = (log) => log.title || (log.worker_id ? "worker" : log.name);

/** What `zray logs` would be asked for to read this log. */
const subjectOf = (log) => log.worker_id || (log.name === "head" ? "head" : log.node_id);

export class LogsView {
  constructor({ signal }) {
    this.title = "Logs";
    this._signal = signal;
    this._said = el("span", { role: "status" });
    this._find = el("input", { type: "search", placeholder: "Node, pid or name", autocomplete: "off", spellcheck: "false", oninput: () => this._show() });
    this._table = new VirtualTable({
      label: "Logs",
      open: (log) => (location.hash = link("logs", subjectOf(log))),
      columns: [
        { name: "title", title: "Runs", width: "minmax(110px, 1.4fr)", sort: nameOf, text: nameOf, href: (log) => link("logs", subjectOf(log)) },
        { name: "node", title: "Node", width: "minmax(70px, 0.7fr)", soft: true, sort: (log) => log.node, text: (log) => log.node },
        { name: "pid", title: "Pid", width: "76px", number: true, soft: true, sort: (log) => log.pid, text: (log) => (log.pid ? String(log.pid) : "") },
        { name: "size", title: "Size", width: "88px", number: true, sort: (log) => log.size, text: (log) => bytes(log.size) },
        { name: "modified", title: "Changed", width: "minmax(90px, 0.8fr)", from: 560, soft: true, sort: (log) => log.modified, text: (log) => `${agoMs(log.modified * 1000)} ago` },
        { name: "alive", title: "Process", width: "104px", from: 680, sort: (log) => Number(log.alive), text: (log) => (log.alive ? "Runs" : "Over"), tone: (log) => (log.alive ? "ok" : "calm") },
        { name: "name", title: "File", width: "minmax(120px, 1.6fr)", from: 900, mono: true, sort: (log) => log.name, text: (log) => log.name },
      ],
    });
    signal.addEventListener("abort", () => this._table.close());
    this._place = el("div", null, this._table.element);
    this.element = el(
      "div",
      { class: "stack" },
      el("div", { class: "head-line" }, el("h1", { tabindex: "-1" }, "Logs"), el("div", { class: "actions" }, el("button", { type: "button", class: "button small", onclick: () => this.load() }, icon("refresh"), "Refresh"))),
      el("section", { class: "card", "aria-label": "Logs" }, el("form", { class: "table-tools", role: "search", onsubmit: (event) => event.preventDefault() }, el("label", { class: "field" }, el("span", null, "Find among these"), this._find)), this._place, el("div", { class: "table-foot" }, this._said)),
    );
    this.load();
  }

  async load() {
    try {
      this._told = await get(["logs"], {}, this._signal);
      this._show();
    } catch (error) {
      if (!isAborted(error)) replace(this._place, trouble(error, () => this.load()));
    }
  }

  _show() {
    if (!this._told) return;
    const wanted = this._find.value.trim().toLowerCase();
    const logs = this._told.items.filter((log) => !wanted || [log.node, log.name, log.title, String(log.pid)].some((one) => one?.toLowerCase().includes(wanted)));
    if (logs.length) {
      if (!this._table.element.isConnected) replace(this._place, this._table.element);
      this._table.set(logs, logs.length);
    } else replace(this._place, nothing(wanted ? "Nothing matches" : "No logs yet", wanted ? "" : "Workers have one as soon as they start; daemons where their output goes to a file."));
    const said = [`${count(logs.length)} of ${count(this._told.items.length)} logs`];
    if (this._told.left_out) said.push(`${count(this._told.left_out)} more are left out`);
    if (this._told.silent?.length) said.push(`no answer from ${this._told.silent.join(", ")}`);
    say(this._said, said.join(" \u00b7 "));
  }
}

/** One log, followed. */
export class LogView {
  constructor({ route, signal, live }) {
    this._subject = route.id;
    this._signal = signal;
    this.title = `Log of ${route.id.slice(0, 12)}`;
    this._waiting = [];
    this._partial = "";
    this._lines = 0;
    this._skipped = 0;
    this._title = el("span");
    this._log = el("div", { class: "log", role: "log", "aria-live": "off", tabindex: "0", "aria-label": "Log" });
    this._said = el("span", { role: "status" });
    this._follow = el("input", { type: "checkbox", checked: true, onchange: () => this._switch() });
    this._aloud = el("input", { type: "checkbox", onchange: () => this._log.setAttribute("aria-live", this._aloud.checked ? "polite" : "off") });
    this.element = el(
      "div",
      { class: "stack" },
      el("nav", { class: "trail", "aria-label": "Where this is" }, el("a", { href: link("logs") }, "Logs"), el("span", { "aria-hidden": "true" }, "/"), this._title),
      el("div", { class: "head-line" }, el("h1", { tabindex: "-1" }, "Log"), el("span", { class: "mono soft" }, route.id)),
      el("section", { class: "card", "aria-label": "Log" }, el("header", null, el("label", { class: "check" }, this._follow, "Follow"), el("label", { class: "check" }, this._aloud, "Announce new lines"), el("span", { class: "end small soft" }, this._said)), this._log),
    );
    // Scrolling up is reading: following begins again at the end.
    this._log.addEventListener("scroll", () => (this._atEnd = this._log.scrollHeight - this._log.scrollTop - this._log.clientHeight < 30));
    this._atEnd = true;
    signal.addEventListener("abort", () => this._stop());
    live.addEventListener("state", () => live.state === "live" && this._follow.checked && !this._source && !this._ended && this._begin(), { signal });
    this._begin();
  }

  _switch() {
    if (this._follow.checked) this._begin();
    else {
      this._stop();
      say(this._said, "not followed");
    }
  }

  async _begin() {
    this._stop();
    const run = (this._run = (this._run ?? 0) + 1);
    try {
      const told = await get(["logs", this._subject], { tail: 1 }, this._signal);
      if (run !== this._run) return;
      const { kind, title, node, pid } = told.subject;
      replace(this._title, [kind, title, pid ? `pid ${pid}` : "", node ? `on ${node}` : ""].filter(Boolean).join(" "));
      document.title = `Log of ${shown(title || kind)} \u00b7 zray`;
    } catch (error) {
      if (isAborted(error) || run !== this._run) return;
      if (!this._lines) replace(this._log, trouble(error));
      say(this._said, error instanceof ApiError ? error.message : "");
      if (error.status !== 404) this._retry = setTimeout(() => this._begin(), 3000);
      return;
    }
    this._open();
  }

  _open() {
    const source = (this._source = new EventSource(address(["logs", this._subject, "follow"], { tail: 500 })));
    this._clear();
    say(this._said, "followed");
    const hear = (name, act) => source.addEventListener(name, (event) => source === this._source && event.data && act(JSON.parse(event.data)));
    hear("text", (told) => this._take(told.text));
    hear("remark", (told) => say(this._said, told.text));
    hear("problem", (told) => say(this._said, (told.error ?? told).message));
    hear("end", (told) => {
      this._ended = true;
      this._stop();
      say(this._said, told.text || "the log has ended");
    });
    source.addEventListener("error", () => {
      if (source !== this._source) return;
      this._stop();
      say(this._said, "cut off; trying again \u2026");
      this._retry = setTimeout(() => this._begin(), 2000);
    });
  }

  _stop() {
    clearTimeout(this._retry);
    this._run = (this._run ?? 0) + 1;
    this._source?.close();
    this._source = null;
  }

  _clear() {
    replace(this._log);
    Object.assign(this, { _waiting: [], _partial: "", _lines: 0, _last: null });
  }

  _take(text) {
    const parts = (this._partial + text.replace(ANSI, "").replaceAll("\r\n", "\n")).split("\n");
    this._partial = parts.pop().slice(-LINE_MAX);
    this._waiting.push(...parts);
    // What comes faster than it can be shown is never kept: only the last lines are.
    const over = this._waiting.length - LINES_MAX;
    if (over > 0) {
      this._waiting.splice(0, over);
      this._skipped += over;
      say(this._said, `followed; ${count(this._skipped)} lines came too fast to be shown`);
    }
    this._frame ??= requestAnimationFrame(() => this._draw());
  }

  _draw() {
    this._frame = null;
    const lines = this._waiting.splice(0, BATCH);
    const fresh = document.createDocumentFragment();
    this._last?.remove();
    for (const line of lines) fresh.append(lineElement(line));
    this._lines += lines.length;
    // A line that has not ended yet is shown as it is.
    this._last = this._partial && !this._waiting.length ? lineElement(this._partial) : null;
    if (this._last) fresh.append(this._last);
    this._log.append(fresh);
    for (; this._lines > LINES_MAX; this._lines--) this._log.firstElementChild.remove();
    if (this._atEnd) this._log.scrollTop = 1e9; // the end, without asking where that is
    if (this._waiting.length) this._frame = requestAnimationFrame(() => this._draw());
  }
}

// A bar that is drawn again and again on its line is seen as it was last.
function lineElement(whole) {
  const text = whole.replace(/\r+$/, "").replace(/^.*\r/s, "");
  const cut = text.length > LINE_MAX ? `${text.slice(0, LINE_MAX)} \u2026 (${count(text.length - LINE_MAX)} more characters)` : text;
  return el("div", null, cut || "\u00a0");
}

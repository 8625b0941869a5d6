/* The stream of what the cluster does. Owns the connection: whether it is live, why not, and that it
   comes back by itself; and the samples of the last ten minutes. */

import { address, ApiError, answers, openSession } from "./api.js";

const SAMPLES_MAX = 600;
const NEWS_MAX = 200;
const RETRY_MS = [500, 1000, 2000, 4000, 5000];
const SILENT_MS = 25_000; // the server says something every 15 s at least

/** States: connecting; live; away (the head does not answer); gone (the dashboard process does not); over (no session). */
export class Live extends EventTarget {
  constructor() {
    super();
    this.state = "connecting";
    this.latest = null;
    this.samples = [];
    this.news = [];
    this.session = null;
    this.problem = null;
    this._tries = 0;
    this._names = new Map();
    answers.addEventListener("answer", (event) => event.detail === 401 && this._lost());
    addEventListener("pagehide", () => this._close());
    addEventListener("pageshow", (event) => event.persisted && this.start());
    addEventListener("online", () => this.state !== "live" && this.start());
  }

  async start() {
    this._close();
    clearTimeout(this._timer);
    const run = (this._run = (this._run ?? 0) + 1);
    try {
      this.session = await openSession();
    } catch (error) {
      if (run !== this._run) return;
      const over = error instanceof ApiError && error.status === 401;
      this._become(over ? "over" : "gone", error);
      this._again();
      return;
    }
    if (run === this._run) this._open();
  }

  /** The name of a node by its id, or the id. */
  nodeName(id) {
    return id ? (this._names.get(id) ?? id.slice(0, 8)) : "";
  }

  /** Nodes by id, as the stream has told. */
  get nodes() {
    return this._names;
  }

  _open() {
    const source = (this._source = new EventSource(address(["stream"])));
    const hear = (name, act) =>
      source.addEventListener(name, (event) => {
        if (source !== this._source) return;
        this._heard();
        act(event.data ? JSON.parse(event.data) : {});
      });
    hear("history", (told) => {
      this.samples = told.samples.slice(-SAMPLES_MAX);
      this._tell("samples");
    });
    hear("overview", (told) => this._overview(told));
    hear("bye", () => this._lost());
    source.addEventListener("error", () => source === this._source && this._lost());
    this._heard();
  }

  _heard() {
    clearTimeout(this._watch);
    this._watch = setTimeout(() => this._lost(), SILENT_MS);
  }

  _overview(told) {
    this._tries = 0;
    this.latest = told;
    this.samples.push(told);
    if (this.samples.length > SAMPLES_MAX) this.samples.splice(0, this.samples.length - SAMPLES_MAX);
    // Only the figures are kept of what is not the latest.
    const before = this.samples.at(-2);
    if (before?.queue) for (const name of ["queue", "node_figures", "changed", "events"]) delete before[name];
    for (const node of told.node_figures ?? []) this._names.set(node.node_id, node.name);
    if (this._names.size > 2000) this._names = new Map((told.node_figures ?? []).map((node) => [node.node_id, node.name]));
    if (told.events?.length) this.news = [...told.events.toReversed(), ...this.news].slice(0, NEWS_MAX);
    this._become(told.up && !told.head?.code ? "live" : "away", told.head);
    this._tell("overview");
  }

  _lost() {
    if (this._source === null && this.state !== "live") return;
    this._close();
    // Whether the process or the session has ended is known by asking again.
    if (this.state === "live") this._become("connecting", null);
    this._again();
  }

  _again() {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this.start(), RETRY_MS[Math.min(this._tries++, RETRY_MS.length - 1)]);
  }

  _close() {
    clearTimeout(this._watch);
    this._source?.close();
    this._source = null;
  }

  _become(state, problem) {
    this.problem = problem;
    if (state === this.state) return;
    this.state = state;
    this._tell("state");
  }

  _tell(name) {
    this.dispatchEvent(new CustomEvent(name));
  }
}

/* The page: rail, bar, notices, and which view is shown. Made last, of all the others. */

import { get, isAborted } from "./api.js";
import { Live } from "./live.js";
import { el, icon, replace, say, svg } from "./parts/elements.js";
import { count, seconds } from "./parts/format.js";
import { nothing, PLURAL, trouble } from "./parts/things.js";
import { link, route } from "./router.js";
import { apply, theme, themes, turn } from "./theme.js";
import { KINDS } from "./views/kinds.js";
import { ListView } from "./views/list.js";
import { LogsView, LogView } from "./views/logs.js";
import { NamesView } from "./views/names.js";
import { NodesView } from "./views/nodes.js";
import { OverviewView } from "./views/overview.js";
import { ThingView } from "./views/thing.js";
import { TimelineView } from "./views/timeline.js";

const ENTRIES = [
  ["overview", "Overview"], ["nodes", "Nodes"], ["tasks", "Tasks"], ["actors", "Actors"], ["objects", "Objects"],
  ["workers", "Workers"], ["jobs", "Jobs"], ["placement_groups", "Placement groups"], ["logs", "Logs"], ["events", "Events"], ["timeline", "Timeline"],
];
const COUNTS = {
  nodes: (s) => s.nodes.alive, actors: (s) => s.actors.alive, objects: (s) => s.objects, jobs: (s) => s.jobs,
  placement_groups: (s) => s.groups?.all ?? 0,
  tasks: (s) => s.tasks.running + s.tasks.queued + s.tasks.waiting,
};
const SHOWN_AS = { names: "tasks" };
const THEME_WORDS = { auto: ["auto", "Theme: as the system"], light: ["sun", "Theme: light"], dark: ["moon", "Theme: dark"] };

function viewOf(context) {
  const { view, id } = context.route;
  if (view === "overview") return new OverviewView(context);
  if (view === "timeline") return new TimelineView(context);
  if (view === "names") return new NamesView(context);
  if (view === "find") return new FindView(context);
  if (view === "logs") return id ? new LogView(context) : new LogsView(context);
  if (view === "nodes" && !id) return new NodesView(context);
  if (!Object.hasOwn(KINDS, view)) return new NowhereView();
  if (!id) return new ListView(KINDS[view], context);
  if (view !== "events") return new ThingView(view, context);
  return new NowhereView();
}

/** For an address that names no view. */
class NowhereView {
  title = "Not found";
  element = el("div", { class: "stack" }, el("h1", { tabindex: "-1" }, "There is no such page"), el("p", null, el("a", { href: link("overview") }, "To the overview")));
}

/** What an id or name stands for: asks, and goes there. */
class FindView {
  constructor({ route: { id }, signal }) {
    this.title = `Find ${id}`;
    const place = el("div", { class: "card", "aria-live": "polite" }, nothing("Looking \u2026"));
    this.element = el("div", { class: "stack" }, el("h1", { tabindex: "-1" }, "Find"), place);
    this._find(id, place, signal);
  }

  async _find(subject, place, signal) {
    try {
      const { causes } = await get(["why", subject], {}, signal);
      const { kind, id } = causes[0];
      if (Object.hasOwn(PLURAL, kind) && id) return void location.replace(link(PLURAL[kind], id));
      replace(place, nothing(`${subject} is a ${kind}`, causes[0].text));
    } catch (error) {
      if (isAborted(error)) return;
      if (error.status === 404) replace(place, nothing(`Nothing is known as ${subject}`, "Look for an id, or the name of a node or an actor. Tasks are found by name in the list of tasks."), el("p", { class: "nothing" }, el("a", { href: link("tasks", "", { name: subject }) }, `Tasks called ${subject}`)));
      else replace(place, trouble(error));
    }
  }
}

class App {
  constructor() {
    this._live = new Live();
    this._main = el("main", { id: "content", tabindex: "-1" });
    this._notices = el("div", { class: "notices", role: "region", "aria-label": "Notices", "aria-live": "assertive" });
    this._state = el("span", { class: "live", "data-state": "stale" }, el("span", { class: "words" }, "Connecting"));
    this._entries = new Map();
    const body = document.body;
    replace(body, el("a", { class: "skip", href: "#content", onclick: (event) => this._skip(event) }, "Skip to the content"), el("div", { class: "shell" }, this._rail(), this._top(), el("div", { class: "middle" }, this._notices, this._main)));
    addEventListener("hashchange", () => this._route());
    addEventListener("keydown", (event) => this._key(event));
    this._live.addEventListener("overview", () => this._figures());
    this._live.addEventListener("state", () => this._told());
    this._route();
    this._live.start();
  }

  _rail() {
    const entries = ENTRIES.map(([name, words]) => {
      const many = el("span", { class: "count", "aria-hidden": "true" });
      const entry = el("a", { class: "entry", href: link(name), onclick: () => this._menu(false) }, icon(name), words, many);
      this._entries.set(name, { entry, many });
      return el("li", null, entry);
    });
    const logo = svg("svg", { viewBox: "0 0 32 32", "aria-hidden": "true" },
      svg("rect", { class: "plate", width: 32, height: 32, rx: 7 }),
      svg("path", { class: "letter", d: "M8 9.5h16M8 22.5h16", fill: "none", "stroke-width": 3, "stroke-linecap": "round" }),
      svg("path", { class: "ray", d: "M22.6 11.6 9.4 20.4", fill: "none", "stroke-width": 3, "stroke-linecap": "round" }));
    this._foot = el("p", { class: "foot" });
    return (this._railElement = el("nav", { class: "rail", id: "rail", "aria-label": "Views" }, el("a", { class: "brand", href: link("overview") }, logo, "zray"), el("ul", null, entries), this._foot));
  }

  _top() {
    this._menuButton = el("button", { type: "button", class: "button quiet icon menu-button", "aria-label": "Menu", "aria-expanded": "false", "aria-controls": "rail", onclick: () => this._menu(this._scrim === undefined || !this._scrim) }, icon("menu"));
    this._search = el("input", { type: "search", "aria-label": "Find an id, node or actor", placeholder: "Find an id, node or actor", autocomplete: "off", spellcheck: "false", maxlength: 200 });
    const form = el("form", { role: "search", "aria-label": "Everything", onsubmit: (event) => this._find(event) }, icon("search"), this._search);
    const turned = el("button", { type: "button", class: "button quiet icon", onclick: () => turn() });
    const dress = () => {
      const [shape, words] = THEME_WORDS[theme()];
      replace(turned, icon(shape));
      turned.setAttribute("aria-label", words);
      turned.title = words;
    };
    themes.addEventListener("change", dress);
    apply();
    return el("header", { class: "top" }, this._menuButton, form, el("div", { class: "end" }, this._state, turned));
  }

  _find(event) {
    event.preventDefault();
    const wanted = this._search.value.trim();
    if (wanted) location.hash = link("find", wanted);
    this._search.value = "";
  }

  _menu(open) {
    if (!open && !this._scrim) return;
    this._railElement.classList.toggle("open", open);
    this._menuButton.setAttribute("aria-expanded", String(open));
    this._scrim?.remove();
    this._scrim = open ? el("div", { class: "scrim", onclick: () => this._menu(false) }) : null;
    if (open) {
      document.body.append(this._scrim);
      this._railElement.querySelector("[aria-current], a")?.focus();
    } else if (this._railElement.contains(document.activeElement)) this._menuButton.focus();
  }

  _skip(event) {
    event.preventDefault();
    this._main.focus();
  }

  _key(event) {
    if (event.key === "Escape") this._menu(false);
    const typing = event.target.closest?.("input, select, textarea, dialog");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      this._search.focus();
    }
  }

  _route() {
    const moved = this._scope !== undefined;
    this._scope?.abort();
    this._scope = new AbortController();
    const context = { live: this._live, route: route(), signal: this._scope.signal };
    let view;
    try {
      view = viewOf(context);
    } catch (error) {
      console.error(error);
      view = { title: "Error", element: trouble(error) };
    }
    document.title = `${view.title} \u00b7 zray`;
    replace(this._main, view.element);
    for (const [name, { entry }] of this._entries) {
      if (name === (SHOWN_AS[context.route.view] ?? context.route.view)) entry.setAttribute("aria-current", "page");
      else entry.removeAttribute("aria-current");
    }
    scrollTo(0, 0);
    // Who reads the page by ear or by keyboard goes on at its new title.
    if (moved) view.element.querySelector("h1")?.focus({ preventScroll: true });
  }

  _figures() {
    const sample = this._live.latest;
    for (const [name, read] of Object.entries(COUNTS)) say(this._entries.get(name).many, count(read(sample)));
    this._told();
  }

  _told() {
    const { state, problem, session } = this._live;
    const words = { live: "Live", connecting: "Connecting", away: "Head is away", gone: "Not connected", over: "Session over" }[state];
    this._state.dataset.state = { live: "live", connecting: "stale" }[state] ?? "lost";
    say(this._state.firstElementChild, words);
    this._state.title = words;
    if (session) say(this._foot, `zray ${session.version} \u00b7 ${session.cluster}`);
    const age = state === "away" && this._live.latest?.head?.age_s > 2 ? ` The figures are ${seconds(Math.floor(this._live.latest.head.age_s))} old.` : "";
    if (state !== this._noticed) this._notice(state, problem);
    if (this._age) say(this._age, age);
    this._noticed = state;
  }

  _notice(state, problem) {
    this._age = null;
    if (state === "live" || (state === "connecting" && !this._notices.childElementCount)) return void replace(this._notices);
    if (state === "connecting") return;
    const [title, text, code] = {
      away: ["The head does not answer.", problem?.next || "See whether its process runs: zray status.", problem?.code],
      gone: ["The dashboard process does not answer.", "See whether the head runs: zray status. Where it does, zray dashboard opens a new one.", ""],
      over: ["This session is over.", "Run zray dashboard to open a new one; this page goes on then.", ""],
    }[state];
    this._age = el("span", { "aria-hidden": "true" }); // not read out each second
    replace(this._notices, el("div", { class: "notice", "data-tone": state === "away" ? "wait" : "bad" }, el("strong", null, title), " ", el("span", null, text, code ? ` (${code})` : "", this._age), " ", el("span", { class: "soft" }, "The page tries again by itself."), " ", el("button", { type: "button", class: "button small", onclick: () => this._live.start() }, "Try now")));
  }
}

new App();

/* All nodes: a card for each with what it has and does while there are few; the table always. */

import { el, replace } from "../parts/elements.js";
import { count } from "../parts/format.js";
import { chip } from "../parts/things.js";
import { link } from "../router.js";
import { KINDS } from "./kinds.js";
import { ListView } from "./list.js";
import { usageGauges, watchUsage } from "../parts/usage.js";
import { resources } from "./thing.js";

const CARDS_MAX = 24;

export class NodesView {
  constructor(context) {
    this.title = "Nodes";
    this._live = context.live;
    this._cards = el("div", { class: "nodes" });
    const list = new ListView(KINDS.nodes, context);
    const title = list.element.querySelector("h1");
    replace(title, "Nodes");
    list.element.querySelector(".head-line").after(this._cards);
    this.element = list.element;
    context.live.addEventListener("overview", () => this._show(), { signal: context.signal });
    this._usage = new Map();
    watchUsage((found) => {
      this._usage = found;
      this._show();
    }, context.signal);
    if (context.live.latest) this._show();
  }

  _show() {
    const nodes = (this._live.latest?.node_figures ?? []).toSorted((a, b) => (a.name < b.name ? -1 : 1));
    this._cards.hidden = nodes.length > CARDS_MAX || !nodes.length;
    const key = JSON.stringify([nodes, [...this._usage.values()].map(({ processes, ...rest }) => rest)]);
    if (this._cards.hidden || key === this._key) return;
    this._key = key;
    const focused = document.activeElement?.closest?.(".node-card a")?.getAttribute("href");
    replace(
      this._cards,
      nodes.map((node) =>
        el(
          "section",
          { class: "card node-card", "aria-label": `Node ${node.name}` },
          el("header", null, el("h2", null, el("a", { href: link("nodes", node.node_id) }, node.name)), chip(node.state), el("a", { class: "end small", href: link("workers", "", { node_id: node.node_id }) }, "Workers")),
          el("div", { class: "body" }, resources(node.resources, node.available, this._usage.has(node.node_id)), usageGauges(this._usage.get(node.node_id)), el("div", { class: "small soft number" }, `${count(node.running)} running \u00b7 ${count(node.queued)} queued \u00b7 ${count(node.finished)} finished`)),
        ),
      ),
    );
    if (focused) this._cards.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }
}

/* A short list of things that belong to another one, with a link to all of them. */

import { get, isAborted } from "../api.js";
import { link } from "../router.js";
import { el, replace } from "./elements.js";
import { count, seconds, stateWords } from "./format.js";
import { chip, thingLink } from "./things.js";

const MANY = 8;
const ROWS = {
  tasks: { heads: ["Name", "State", "Ran"], cells: (r) => [thingLink("tasks", r.task_id, r.name), chip(r.state), r.start_time_ms ? seconds(((r.end_time_ms || Date.now()) - r.start_time_ms) / 1000) : ""] },
  actors: { heads: ["Class", "State", "Restarts"], cells: (r) => [thingLink("actors", r.actor_id, r.class_name), chip(r.state), count(r.num_restarts)] },
  placement_groups: { heads: ["Group", "State", "Bundles"], cells: (r) => [thingLink("placement_groups", r.placement_group_id, r.name || undefined), chip(r.state), count(r.bundles.length)] },
  workers: { heads: ["Process", "Type", "Actor"], cells: (r) => [thingLink("workers", r.worker_id, `pid ${r.pid}`), stateWords(r.worker_type), r.actor_id ? thingLink("actors", r.actor_id) : ""] },
};

/** {kind, title, filter}: the card and how it is loaded; hidden while there is nothing. */
export function related({ kind, title, filter }, live, signal) {
  const { heads, cells } = ROWS[kind];
  const place = el("div", { class: "plain-wrap", tabindex: "0", role: "region", "aria-label": title });
  const note = el("span", { class: "end small" });
  const element = el("section", { class: "card", hidden: true }, el("header", null, el("h2", null, title), note), place);
  let key = "";
  const load = async () => {
    try {
      const told = await get([kind], { limit: MANY, filter: Object.entries(filter).map(([name, value]) => `${name}=${value}`) }, signal);
      const next = JSON.stringify([told.items, told.next === null]);
      element.hidden = told.items.length === 0;
      if (next === key) return;
      key = next;
      replace(note, el("a", { href: link(kind, "", filter) }, told.next === null ? "As a table" : "All of them"));
      const head = el("tr", null, heads.map((one, i) => el("th", { scope: "col", class: i === 2 ? "number" : null }, one)));
      const rows = told.items.map((record) => el("tr", null, cells(record).map((one, i) => el("td", { class: i === 2 ? "number" : null }, one))));
      replace(place, el("table", { class: "plain" }, el("thead", null, head), el("tbody", null, rows)));
    } catch (error) {
      if (!isAborted(error) && !key) element.hidden = true;
    }
  };
  return { element, load };
}

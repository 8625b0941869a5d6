/* How things are named and linked, and the small parts that views share: chips, facts, cards, notices. */

import { ApiError } from "../api.js";
import { link } from "../router.js";
import { add, el, icon, replace } from "./elements.js";
import { shortId, stateWords, tone } from "./format.js";

export const PLURAL = { task: "tasks", call: "tasks", attempt: "tasks", object: "objects", actor: "actors", node: "nodes", job: "jobs", worker: "workers", driver: "workers", "placement group": "placement_groups" };
export const EMPTY = "\u2013";

export function chip(state, words = stateWords(state)) {
  return el("span", { class: "chip", "data-tone": tone(state) }, words);
}

/** A link to a thing by kind (as causes have it, or plural) and id. */
export function thingLink(kind, id, words = shortId(id)) {
  if (!id) return EMPTY;
  const view = PLURAL[kind] ?? kind;
  return el("a", { href: link(view, id), title: id }, String(words).trim() || "(no name)");
}

/** An id whole, and a button that copies it. */
export function wholeId(id) {
  const said = el("span", { class: "unseen", role: "status" });
  const copy = el("button", {
    type: "button", class: "button quiet icon small", "aria-label": "Copy id", title: "Copy id",
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(id);
        replace(said, "Copied");
      } catch {
        replace(said, "This browser does not allow to copy; select the id instead");
      }
    },
  }, icon("copy"));
  return [el("span", { class: "mono" }, id), " ", copy, said];
}

/** A list of names and values; what is empty is left out. */
export function facts(pairs) {
  const list = el("dl", { class: "facts" });
  for (const [name, value] of pairs) {
    if (value === null || value === undefined || value === "" || value === EMPTY) continue;
    const place = el("dd");
    add(place, [value]);
    list.append(el("dt", null, name), place);
  }
  return list;
}

export function card(title, body, { end = null, padded = true, id = null } = {}) {
  return el(
    "section",
    { class: "card", id },
    title || end ? el("header", null, title ? el("h2", null, title) : null, end ? el("div", { class: "end" }, end) : null) : null,
    padded ? el("div", { class: "body" }, body) : body,
  );
}

/** What is shown where there is nothing. */
export function nothing(title, text = "") {
  return el("div", { class: "nothing" }, el("strong", null, title), text);
}

/** What went wrong, its effect and what to do. */
export function trouble(error, again = null) {
  const known = error instanceof ApiError;
  return el(
    "div",
    { class: "nothing", role: "alert" },
    el("strong", null, known ? error.message : `The page has failed: ${error}`),
    known ? [error.effect, error.effect ? " " : "", error.next, error.code ? ` (${error.code})` : ""] : "Load it again; please report it if it stays.",
    again ? el("p", null, el("button", { type: "button", class: "button small", onclick: again }, "Try again")) : null,
  );
}

/** A share of a whole as a bar, with the figures as text. `alarming`: a full one is marked. */
export function gauge(name, used, total, words, alarming = false) {
  const share = total > 0 ? Math.min(1, used / total) : 0;
  const fill = el("span");
  fill.style.width = `${(share * 100).toFixed(1)}%`;
  return el(
    "div",
    { class: "gauge" },
    el("span", null, name),
    el("span", { class: "value" }, `${words(used)} of ${words(total)}`),
    el("div", { class: "bar", "data-tone": alarming && share > 0.9 ? "high" : "", "aria-hidden": "true" }, fill),
  );
}

/* The filters above a table; the head applies them. */

import { el } from "./elements.js";

const TYPING_MS = 350;

/** fields: {key, label, options: [[value, words]] or none for a text}; values by key; changed(values). */
export function filterBar(fields, values, changed, signal) {
  const now = { ...values };
  let timer = 0;
  const set = (key, value, wait) => {
    clearTimeout(timer);
    now[key] = value.trim();
    timer = setTimeout(() => changed({ ...now }), wait);
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  const shut = !fields.some(({ key }) => values[key]);
  const fold = el("button", { type: "button", class: "button small fold", "aria-expanded": String(!shut), onclick: () => fold.setAttribute("aria-expanded", String(fold.getAttribute("aria-expanded") !== "true")) }, "Filters");
  return el(
    "form",
    { class: "table-tools", role: "search", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
    fold,
    fields.map(({ key, label, options, hint }) => {
      const input = options
        ? el("select", { name: key, onchange: (event) => set(key, event.target.value, 0) }, el("option", { value: "" }, "All"), options.map(([value, words]) => el("option", { value, selected: value === now[key] }, words)))
        : el("input", { type: "text", name: key, value: now[key] ?? "", placeholder: hint, autocomplete: "off", spellcheck: "false", maxlength: 200, oninput: (event) => set(key, event.target.value, TYPING_MS) });
      return el("label", { class: "field" }, el("span", null, label), input);
    }),
  );
}

/* Dialogs: one that asks before something ends, one that shows where a process is. */

import { address, get, isAborted, post } from "../api.js";
import { el, icon, replace } from "./elements.js";
import { trouble } from "./things.js";

let numbers = 0;

function open(title, body, footer, { wide = false, closed = () => {} } = {}) {
  const id = `dialog-${++numbers}`;
  const from = document.activeElement;
  const dialog = el(
    "dialog",
    { "aria-labelledby": id, class: wide ? "wide" : null },
    el("header", { class: "head-line" }, el("h2", { id, class: "grow" }, title), el("button", { type: "button", class: "button quiet icon", "aria-label": "Close", onclick: () => dialog.close() }, icon("close"))),
    el("div", { class: "body" }, body),
    footer ? el("footer", null, footer) : null,
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    closed();
    if (from?.isConnected) from.focus();
  });
  addEventListener("hashchange", () => dialog.close(), { once: true });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Ask, then do it. `act` returns a promise of what to say; its error is shown in the dialog. */
export function confirm({ title, text, verb, extra = null, act, done = () => {} }) {
  const outcome = el("div", { role: "status" });
  const go = el("button", { type: "button", class: "button danger filled", onclick: run }, verb);
  const leave = el("button", { type: "button", class: "button", autofocus: true, onclick: () => dialog.close() }, "Cancel");
  const dialog = open(title, [el("p", null, text), extra, outcome], [leave, go]);

  async function run() {
    go.disabled = true;
    replace(outcome, "\u2026");
    try {
      const said = await act();
      replace(outcome, el("strong", null, said));
      go.remove();
      replace(leave, "Close");
      leave.focus();
      done();
    } catch (error) {
      go.disabled = false;
      replace(outcome, trouble(error));
    }
  }
}

/** Kill a task, actor or worker, once confirmed. */
export function confirmKill(kind, subject, name, done) {
  const effects = {
    task: "It ends as if it had been cancelled by force, and is not tried again.",
    actor: "It ends for good. Its state is lost, and calls of it fail from then on.",
    worker: "What it runs now is tried again elsewhere, as far as its retries allow. An actor in it may restart.",
  };
  confirm({
    title: `Kill ${kind} ${name}?`,
    text: effects[kind],
    verb: `Kill ${kind}`,
    act: async () => {
      const told = await post(["kill"], { subject });
      return told.remark || `The ${kind} has been killed.`;
    },
    done,
  });
}

/** Drain a node, once confirmed. */
export function confirmDrain(subject, name, done) {
  const reason = el("input", { type: "text", maxlength: 200, autocomplete: "off" });
  const deadline = el("input", { type: "number", min: 0, max: 604800, step: 1, inputmode: "numeric", placeholder: "none" });
  confirm({
    title: `Drain node ${name}?`,
    text: "It gets no more work. What runs there may end; actors that may restart move to other nodes. Then its daemon ends.",
    verb: "Drain node",
    extra: [
      el("label", { class: "field" }, el("span", null, "Reason (shown to others)"), reason),
      el("label", { class: "field" }, el("span", null, "Leaves after so many seconds at the latest"), deadline),
    ],
    act: async () => {
      const told = await post(["drain"], { node: subject, deadline_s: Number(deadline.value) || 0, reason: reason.value });
      return told.remark || "The node is being drained.";
    },
    done,
  });
}

/** Where the threads of a process are, and, asked for, where its time goes. */
export function showStack(subject, name) {
  const stop = new AbortController();
  const text = el("pre", { class: "text", tabindex: "0", "aria-label": "Stack", "aria-live": "polite" }, "Asking \u2026");
  const place = el("div");
  const length = el("select", { "aria-label": "Seconds to record" }, [2, 5, 10, 30].map((one) => el("option", { value: one, selected: one === 5 }, `${one} s`)));
  const again = el("button", { type: "button", class: "button", onclick: load }, icon("refresh"), "Look again");
  const record = el("button", { type: "button", class: "button primary", onclick: flame }, "Record a flame graph");
  open(`Where ${name} is`, [text, place], [again, length, record], { wide: true, closed: () => stop.abort() });
  load();

  async function load() {
    again.disabled = true;
    try {
      const told = await get(["stack", subject], {}, stop.signal);
      replace(text, [told.remark, told.stack].filter(Boolean).join("\n\n"));
    } catch (error) {
      if (!isAborted(error)) replace(text, trouble(error));
    }
    again.disabled = false;
  }

  // The graph is a document of its own in a sandbox: nothing in it reaches the page.
  function flame() {
    const source = address(["profile", subject], { seconds: length.value });
    const status = el("p", { role: "status" }, `Recording for ${length.value} s \u2026`);
    const frame = el("iframe", { class: "flame", sandbox: "allow-scripts", title: `Flame graph of ${name}`, src: source });
    frame.style.height = "min(62vh, 640px)";
    record.disabled = true;
    frame.addEventListener("load", () => {
      record.disabled = false;
      replace(status, "Wide bars are where the time went. ", el("a", { href: source, target: "_blank", rel: "noopener" }, "Record again in a new tab"));
    });
    replace(place, el("div", { class: "stack" }, status, frame));
  }
}

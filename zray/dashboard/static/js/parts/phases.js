/* When the attempts of a task ran: a line of time with a bar for each. */

import { el } from "./elements.js";
import { clock, seconds, stateWords } from "./format.js";
import { card } from "./things.js";

const TONES = { RUNNING: "run", FINISHED: "ok", FAILED: "bad" };

/** The card; null where no attempt has started. */
export function phases(attempts) {
  const now = Date.now();
  const spans = attempts
    .filter((one) => one.start_time_ms)
    .map((one) => ({ number: one.attempt_number, from: one.start_time_ms, to: one.end_time_ms || now, state: one.state, going: !one.end_time_ms }));
  if (!spans.length) return null;
  const from = Math.min(...spans.map((one) => one.from));
  const whole = Math.max(1, Math.max(...spans.map((one) => one.to)) - from);
  const list = el(
    "ul",
    { class: "phases" },
    spans.map((one) => {
      const bar = el("span", { class: "span", "data-tone": TONES[one.state] ?? "calm" });
      bar.style.left = `${((one.from - from) / whole) * 100}%`;
      bar.style.width = `${((one.to - one.from) / whole) * 100}%`;
      const length = seconds((one.to - one.from) / 1000);
      return el("li", null, el("span", null, `Attempt ${one.number}: ${stateWords(one.state).toLowerCase()}`), el("span", { class: "track", "aria-hidden": "true" }, bar), el("span", { class: "time" }, one.going ? `${length} so far` : length));
    }),
  );
  return card("Timeline", list, { end: el("span", { class: "small soft" }, `from ${clock(from)}`) });
}

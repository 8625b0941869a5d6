/* A chart over time of live samples. Owns the canvas (uPlot), its colours by theme, and the legend, which says
   the figures as text. */

import { el, say } from "./elements.js";
import { themes } from "../theme.js";

const HEIGHT = 168;
const SHOWN_S = 300; // the last so many seconds

/** The colour of a custom property as it is now. */
function colour(name) {
  const probe = el("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

// Whole minutes need no seconds.
function time(t) {
  return new Date(t * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: t % 60 ? "2-digit" : undefined });
}

function faded(value, share) {
  return value.replace(/^rgb\((.*)\)$/, `rgba($1, ${share})`);
}

export class Chart {
  /** series: {label, colour: "--chart-1", value: sample -> number or null, dash}; words: number -> string. */
  constructor({ title, series, words, signal, least = 1 }) {
    this.series = series;
    this.words = words;
    this.least = least;
    this.data = [[], ...series.map(() => [])];
    this.values = series.map(() => el("span", { class: "value" }));
    this.keys = series.map(() => el("span", { class: "key", "aria-hidden": "true" }));
    const legend = el("ul", { class: "legend" }, series.map((one, i) => el("li", null, this.keys[i], one.label, this.values[i])));
    this.space = el("div", { class: "chart", "aria-hidden": "true" });
    this.element = el("section", { class: "card" }, el("header", { class: "chart-head" }, el("h2", null, title), legend), el("div", { class: "body" }, this.space));
    const watch = new ResizeObserver(() => this._fit());
    watch.observe(this.space);
    themes.addEventListener("change", () => this._make(), { signal });
    signal.addEventListener("abort", () => {
      watch.disconnect();
      this.plot?.destroy();
      this.plot = null;
    });
  }

  /** Show these samples; times are unix seconds. A gap is where nobody looked. */
  set(samples) {
    const rows = [];
    let before = null;
    const first = (samples.at(-1)?.t ?? 0) - SHOWN_S;
    for (const sample of samples) {
      if (sample.t < first) continue;
      if (before !== null && sample.t - before > 5) rows.push({ t: before + 1, gap: true });
      rows.push(sample);
      before = sample.t;
    }
    this.data = [
      rows.map((row) => row.t),
      ...this.series.map((one) => rows.map((row) => (row.gap || !row.up ? null : (one.value(row) ?? null)))),
    ];
    const last = rows.at(-1);
    this.series.forEach((one, i) => {
      const value = last ? one.value(last) : null;
      say(this.values[i], Number.isFinite(value) ? this.words(value) : "\u2013");
    });
    if (this.plot && !document.hidden) this.plot.setData(this.data);
    else if (!this.plot) this._make();
  }

  _fit() {
    const width = this.space.clientWidth;
    if (!width) return;
    if (this.plot) this.plot.setSize({ width, height: HEIGHT });
    else this._make();
  }

  _make() {
    const width = this.space.clientWidth;
    if (!width) return;
    this.plot?.destroy();
    const [ink, line] = [colour("--ink-faint"), colour("--line")];
    const colours = this.series.map((one) => colour(one.colour));
    this.keys.forEach((key, i) => (key.style.background = colours[i]));
    const axis = { stroke: ink, font: "12px system-ui, sans-serif", ticks: { show: false }, grid: { stroke: line, width: 1 } };
    const options = {
      width,
      height: HEIGHT,
      padding: [10, 6, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { x: { time: true }, y: { range: (_, __, high) => [0, Math.max(this.least, (high || 0) * 1.12)] } },
      axes: [
        { ...axis, size: 26, gap: 4, space: 58, grid: { show: false }, values: (_, places) => places.map(time) },
        { ...axis, size: 58, gap: 6, space: 36, values: (_, places) => places.map((value) => this.words(value)) },
      ],
      series: [
        {},
        ...this.series.map((one, i) => ({
          label: one.label, stroke: colours[i], width: 1.6, dash: one.dash, points: { show: false },
          fill: one.fill ? faded(colours[i], 0.12) : undefined,
        })),
      ],
      hooks: { setCursor: [(plot) => this._read(plot.cursor.idx)] },
    };
    this.plot = new globalThis.uPlot(options, this.data, this.space);
  }

  // Under the pointer the legend shows the figures of that moment.
  _read(place) {
    const at = place ?? this.data[0].length - 1;
    this.series.forEach((_, i) => {
      const value = this.data[i + 1][at];
      say(this.values[i], Number.isFinite(value) ? this.words(value) : "\u2013");
    });
  }
}

/* What ran when, as lanes of bars on a canvas: zoom, move, point and choose. Knows spans, not tasks. */

import { el } from "./elements.js";
import { clock, seconds } from "./format.js";
import { themes } from "../theme.js";

const [LANE, BAR, HEAD, NAMES] = [24, 16, 26, 132];
const LEAST_S = 1e-4;

export class Lanes {
  /** lanes: [{name, spans: [{from, to, name, id, tone}] by from}], times in seconds; chosen(span). */
  constructor({ label, chosen, pointed, signal }) {
    this.lanes = [];
    this._chosen = chosen;
    this._pointed = pointed;
    this._canvas = el("canvas", { class: "lanes-canvas", "aria-hidden": "true" });
    this._space = el("div");
    this.element = el("div", { class: "lanes", tabindex: "0", role: "application", "aria-roledescription": "timeline", "aria-label": label, onscroll: () => this._later(), onkeydown: (event) => this._key(event) }, this._canvas, this._space);
    this.element.addEventListener("wheel", (event) => this._wheel(event), { passive: false });
    this.element.addEventListener("pointerdown", (event) => this._down(event));
    this.element.addEventListener("pointermove", (event) => this._hover(event));
    this.element.addEventListener("pointerleave", () => this._pointed(null));
    const watch = new ResizeObserver(() => this._later());
    watch.observe(this.element);
    themes.addEventListener("change", () => this._later(), { signal });
    signal.addEventListener("abort", () => watch.disconnect());
  }

  set(lanes) {
    this.lanes = lanes;
    this.element.style.height = `${HEAD + Math.max(3, lanes.length) * LANE + 10}px`;
    const all = lanes.flatMap((lane) => [lane.spans[0]?.from, ...lane.spans.slice(-50).map((span) => span.to)]).filter(Number.isFinite);
    this.first = all.length ? Math.min(...all) : 0;
    this.last = all.length ? Math.max(...all, this.first + LEAST_S) : 1;
    this.fit();
  }

  fit() {
    const rest = (this.last - this.first) * 0.02;
    [this.from, this.to] = [this.first - rest, this.last + rest];
    this._later();
  }

  zoom(factor, share = 0.5) {
    const width = Math.min(Math.max((this.to - this.from) * factor, LEAST_S), (this.last - this.first) * 1.5 + 1);
    const at = this.from + (this.to - this.from) * share;
    this.from = at - width * share;
    this.to = this.from + width;
    this._later();
  }

  move(share) {
    const by = (this.to - this.from) * share;
    this.from += by;
    this.to += by;
    this._later();
  }

  _later() {
    this._frame ??= requestAnimationFrame(() => {
      this._frame = null;
      this._draw();
    });
  }

  _draw() {
    const [width, height] = [this.element.clientWidth, this.element.clientHeight];
    if (!width || !height) return;
    this._space.style.height = `${Math.max(0, HEAD + this.lanes.length * LANE + 8 - height)}px`;
    const scale = devicePixelRatio || 1;
    if (this._canvas.width !== Math.round(width * scale) || this._canvas.height !== Math.round(height * scale)) {
      [this._canvas.width, this._canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
      this._canvas.style.width = `${width}px`;
      this._canvas.style.height = `${height}px`;
    }
    const paint = this._canvas.getContext("2d");
    const read = getComputedStyle(this.element);
    const colours = { ink: read.color, line: read.borderTopColor, run: read.getPropertyValue("outline-color"), page: read.backgroundColor };
    paint.setTransform(scale, 0, 0, scale, 0, 0);
    paint.clearRect(0, 0, width, height);
    paint.font = "12px system-ui, sans-serif";
    paint.textBaseline = "middle";
    const top = this.element.scrollTop;
    const first = Math.max(0, Math.floor((top - HEAD) / LANE));
    const last = Math.min(this.lanes.length, Math.ceil((top + height) / LANE));
    for (let place = first; place < last; place++) this._lane(paint, this.lanes[place], HEAD + place * LANE - top, width, colours);
    this._times(paint, width, colours);
  }

  _lane(paint, lane, y, width, colours) {
    const pixel = (width - this._names) / (this.to - this.from);
    paint.fillStyle = colours.line;
    paint.fillRect(0, y + LANE - 1, width, 1);
    let drawn = -1;
    for (let i = after(lane.spans, this.from); i < lane.spans.length && lane.spans[i].from < this.to; i++) {
      const span = lane.spans[i];
      const left = Math.max(this._names, this._names + (span.from - this.from) * pixel);
      const right = Math.max(left + 1.5, this._names + (span.to - this.from) * pixel);
      if (right < drawn + 0.7) continue; // nothing new on the screen
      drawn = right;
      paint.fillStyle = span.colour;
      paint.fillRect(left, y + (LANE - BAR) / 2, Math.min(right, width) - left - (right - left > 4 ? 1 : 0), BAR);
      if (right - left > 46) {
        paint.save();
        paint.beginPath();
        paint.rect(left + 3, y, right - left - 8, LANE);
        paint.clip();
        paint.fillStyle = "#ffffff";
        paint.fillText(span.name, left + 6, y + LANE / 2);
        paint.restore();
      }
    }
    paint.clearRect(0, y, this._names - 6, LANE - 1);
    paint.fillStyle = colours.ink;
    paint.save();
    paint.beginPath();
    paint.rect(0, y, this._names - 8, LANE);
    paint.clip();
    paint.fillText(lane.name, 12, y + LANE / 2);
    paint.restore();
  }

  get _names() {
    return Math.min(NAMES, this.element.clientWidth * 0.3);
  }

  _times(paint, width, colours) {
    paint.clearRect(0, 0, width, HEAD);
    paint.fillStyle = colours.ink;
    const across = width - this._names;
    const many = Math.max(2, Math.floor(across / 110));
    for (let i = 0; i < many; i++) {
      const at = this.from + ((this.to - this.from) * (i + 0.5)) / many;
      const x = this._names + (across * (i + 0.5)) / many;
      const words = i === 0 ? clock(at * 1000) : `+${seconds(Math.max(0, at - this.from))}`;
      paint.fillText(words, x - paint.measureText(words).width / 2, HEAD / 2);
      paint.fillRect(x, HEAD - 5, 1, 4);
    }
    paint.fillStyle = colours.line;
    paint.fillRect(0, HEAD - 1, width, 1);
  }

  _at(event) {
    const bounds = this.element.getBoundingClientRect();
    const [x, y] = [event.clientX - bounds.left, event.clientY - bounds.top + this.element.scrollTop];
    const lane = this.lanes[Math.floor((y - HEAD) / LANE)];
    const across = bounds.width - this._names;
    const when = this.from + ((x - this._names) / across) * (this.to - this.from);
    if (!lane || x < this._names) return { when, share: (x - this._names) / across };
    const slack = ((this.to - this.from) / across) * 2;
    const place = after(lane.spans, when - slack);
    const span = lane.spans[place];
    return { when, share: (x - this._names) / across, span: span && span.from <= when + slack ? span : null };
  }

  _hover(event) {
    if (this._drag) return;
    const { span } = this._at(event);
    this.element.style.cursor = span ? "pointer" : "grab";
    this._pointed(span ?? null);
  }

  _wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return; // without: the page, or the lanes, scroll
    event.preventDefault();
    this.zoom(Math.exp(Math.sign(event.deltaY) * 0.18), this._at(event).share);
  }

  _down(event) {
    if (event.button !== 0 || event.pointerType === "touch") return this._tap(event);
    const began = event.clientX;
    const [from, to] = [this.from, this.to];
    this._drag = false;
    const move = (moved) => {
      const by = ((began - moved.clientX) / (this.element.clientWidth - this._names)) * (to - from);
      if (Math.abs(moved.clientX - began) > 3) this._drag = true;
      if (this._drag) [this.from, this.to] = [from + by, to + by];
      this._later();
    };
    const up = (ended) => {
      removeEventListener("pointermove", move);
      if (!this._drag) this._tap(ended);
      this._drag = false;
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", up, { once: true });
  }

  _tap(event) {
    const { span } = this._at(event);
    if (span) this._chosen(span);
  }

  _key(event) {
    const acts = { "+": () => this.zoom(0.7), "=": () => this.zoom(0.7), "-": () => this.zoom(1.4), 0: () => this.fit(), ArrowLeft: () => this.move(-0.15), ArrowRight: () => this.move(0.15) };
    if (!(event.key in acts) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    acts[event.key]();
  }
}

/** The first of the spans (by begin, not overlapping) that ends after a time. */
function after(spans, when) {
  let [low, high] = [0, spans.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (spans[middle].to < when) low = middle + 1;
    else high = middle;
  }
  return low;
}

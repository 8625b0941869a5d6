/* A picture of what a task hangs together with: who has submitted it, what it waits for, what it has submitted.
   Drawn as SVG elements; each box links to its thing. */

import { get, isAborted } from "../api.js";
import { link } from "../router.js";
import { el, replace, shown, svg } from "./elements.js";
import { causeTone, stateWords, tone } from "./format.js";
import { card, PLURAL } from "./things.js";

const [WIDTH, HEIGHT, ACROSS, DOWN] = [176, 46, 236, 60];
const MANY = 7; // boxes of one column

/** The columns from the parts: lists of {id, kind, name, sub, tone}. */
export function columnsOf(task, parent, children, causes) {
  const self = { id: task.task_id, kind: "task", name: task.name, sub: stateWords(task.state), tone: tone(task.state), self: true };
  const behind = causes.filter((cause, place) => place > 0 && cause.id !== task.task_id && cause.kind in PLURAL);
  const waits = behind.map((cause) => ({ id: cause.id, kind: cause.kind, name: cause.name || cause.kind, sub: cause.code, tone: causeTone(cause.code) }));
  const left = waits.map((one) => [one]).reverse();
  // Arguments that the first cause names beside the one that is followed.
  const others = (causes[0]?.code === "WAIT_DEPS" ? causes[0].details : []).slice(waits.length ? 1 : 0).map(({ name, text }) => ({ id: "", kind: "object", name, sub: text, tone: "wait" }));
  if (others.length) left.length ? left.at(-1).push(...others) : left.push(others);
  const made = children.map((one) => ({ id: one.task_id, kind: "task", name: one.name, sub: stateWords(one.state), tone: tone(one.state) }));
  return { left, self, parent, made };
}

/** The SVG of these columns. `more`: children that are not drawn. */
export function picture({ left, self, parent, made }, more = 0) {
  const columns = [...left.map((column) => cut(column, 0)), [self], ...(made.length ? [cut(made, more)] : [])];
  const tallest = Math.max(...columns.map((column) => column.length));
  const top = parent ? DOWN + 14 : 0;
  const [width, height] = [(columns.length - 1) * ACROSS + WIDTH + 4, top + (tallest - 1) * DOWN + HEIGHT + 4];
  const at = columns.map((column, x) => column.map((_, y) => ({ x: x * ACROSS + 2, y: top + 2 + ((tallest - column.length) / 2 + y) * DOWN })));
  const mine = left.length;
  const edges = [];
  for (let x = 0; x + 1 < columns.length; x++) {
    for (const from of x < mine ? at[x] : [at[mine][0]]) {
      const targets = x < mine ? [at[x + 1][0]] : at[x + 1];
      for (const to of targets) edges.push(curve(from.x + WIDTH, from.y + HEIGHT / 2, to.x - 2, to.y + HEIGHT / 2));
    }
  }
  const boxes = columns.flatMap((column, x) => column.map((one, y) => box(one, at[x][y])));
  if (parent) {
    const place = { x: at[mine][0].x, y: 2 };
    edges.push(svg("path", { class: "edge", "stroke-dasharray": "4 3", d: `M${place.x + WIDTH / 2} ${place.y + HEIGHT}V${at[mine][0].y}` }));
    boxes.push(box(parent, place));
  }
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `What ${self.name} hangs together with` }, edges, boxes);
}

function cut(column, more) {
  const left = column.length - MANY + more;
  if (left <= 0 && !more) return column;
  const shownOnes = column.slice(0, MANY);
  const hidden = column.length - shownOnes.length + more;
  return hidden > 0 ? [...shownOnes, { id: "", kind: "", name: `and ${hidden} more`, sub: "", tone: "calm" }] : shownOnes;
}

function curve(x1, y1, x2, y2) {
  const bend = (x2 - x1) / 2;
  return [
    svg("path", { class: "edge", d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - 5} ${y2}` }),
    svg("path", { class: "arrow", d: `M${x2} ${y2}l-8 -4v8z` }),
  ];
}

function box(one, { x, y }) {
  const clip = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}\u2026` : text);
  const parts = [
    svg("title", null, `${one.name} ${one.sub}`),
    svg("rect", { x, y, width: WIDTH, height: HEIGHT, rx: 7 }),
    svg("circle", { class: "dot", "data-tone": one.tone, cx: x + 14, cy: y + HEIGHT / 2, r: 4 }),
    svg("text", { x: x + 27, y: y + (one.sub ? 19 : 28) }, clip(shown(one.name), 20)),
    one.sub ? svg("text", { class: "sub", x: x + 27, y: y + 35 }, clip(shown(one.sub), 25)) : null,
  ];
  if (!one.id || one.self || !(one.kind in PLURAL)) return svg("g", { class: one.self ? "self" : null }, parts);
  return svg("a", { href: link(PLURAL[one.kind], one.id) }, parts);
}

/** The card of a task's picture; `update(task, causes)` draws it again where something has changed. */
export class PictureCard {
  constructor(signal) {
    this._signal = signal;
    this._place = el("div", { class: "picture", tabindex: "0", role: "region", "aria-label": "Dependency picture" });
    this.element = card("Dependencies", this._place, { padded: false, end: el("span", { class: "small soft" }, "waits for \u2192 this task \u2192 has submitted; dashed: submitted by") });
    this.element.hidden = true;
  }

  async update(task, causes) {
    try {
      const told = await get(["tasks"], { filter: `parent_task_id=${task.task_id}`, limit: MANY + 1 }, this._signal);
      if (this._parentOf !== task.parent_task_id && task.parent_task_id) {
        this._parentOf = task.parent_task_id;
        this._parent = await this._find(task.parent_task_id, task.job_id);
      }
      const parts = columnsOf(task, this._parent, told.items, causes);
      const key = JSON.stringify(parts);
      this.element.hidden = !parts.left.length && !parts.made.length && !parts.parent;
      if (key !== this._key) replace(this._place, picture(parts, told.next ? 1 : 0));
      this._key = key;
    } catch (error) {
      if (!isAborted(error) && !this._key) this.element.hidden = true;
    }
  }

  // Tasks that a program submits itself have no task as parent: its job is shown in its place.
  async _find(id, job) {
    try {
      const told = await get(["tasks", id], {}, this._signal);
      const one = told.items.at(-1);
      return { id, kind: "task", name: one.name, sub: stateWords(one.state), tone: tone(one.state) };
    } catch (error) {
      if (isAborted(error)) throw error;
      return { id: job, kind: "job", name: `job ${job.slice(0, 8)}`, sub: "its program", tone: "calm" };
    }
  }
}

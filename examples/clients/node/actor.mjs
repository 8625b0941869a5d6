// The calls of one actor by this process: their order, and what becomes of them when it dies.
// See docs/PROTOCOL.md, "Actors".

import { VERB, ZrayError } from "./session.mjs";
import { LOCATED, NONE, Ref, objectId } from "./values.mjs";

const ALIVE = 2; // states of an actor
const RESTARTING = 3;
const DEAD = 4;
const WINDOW = 1024; // calls without an answer; the rest waits here

/** An actor, for those who call it. Calls start in the order in which they were made. */
export class Actor {
  #link;
  #state = 0;
  #incarnation = 0;
  #route = -1;
  #waiting = [];
  #sent = new Map(); // seq -> call
  #unsettled = new Set(); // seqs whose results the actor must still keep
  #next = 0;
  #error = null;

  constructor(id, className, link) {
    this.id = id;
    this.className = className;
    this.#link = link;
  }

  /** Call a method; returns its result's reference, which is this process's own. */
  call(method, args = [], kwargs = {}) {
    const taskId = this.#link.newId();
    const ref = new Ref(objectId(taskId));
    if (this.#error) ref.fail(this.#error);
    else {
      this.#waiting.push({ taskId, method, ref, ...this.#link.pack(args, kwargs) });
      this.#flush();
    }
    return ref;
  }

  /** This program does not need the actor any more: without other handles it ends. */
  release() {
    this.#link.leave();
  }

  #flush() {
    if (this.#state !== ALIVE) return;
    const calls = this.#waiting.splice(0, WINDOW - this.#sent.size);
    for (const call of calls) {
      call.seq = this.#next++;
      this.#sent.set(call.seq, call);
    }
    if (calls.length) this.#send(calls);
  }

  #send(calls) {
    const records = calls.map((call) => [
      ...[call.seq, call.taskId, call.method, 1, call.bytes, call.dependencies],
      ...[[], [], NONE, call.box !== null],
    ]);
    const upto = Math.min(this.#next, ...this.#sent.keys(), ...this.#unsettled);
    const ids = [this.id, this.#incarnation, this.#link.processId];
    this.#link.send([VERB.CALLS, 0, ...ids, upto, records]);
  }

  onState([, , state, incarnation, route, , , , text, error]) {
    const over = this.#incarnation && (state !== ALIVE || incarnation !== this.#incarnation);
    if (over && this.#sent.size) {
      const code = state === DEAD ? "ZR-3402" : "ZR-3403";
      this.#failCalls([...this.#sent.values()], code, `${text}; the call may have run`, true);
    }
    if (over || state === RESTARTING) {
      this.#sent.clear();
      this.#unsettled.clear();
      this.#next = 0;
    }
    this.#state = state;
    if (state === DEAD) {
      const cause = error.length ? ZrayError.fromRecord(error) : undefined;
      this.#error = new ZrayError("ZR-3402", `${text}; the call did not run`, { cause });
      for (const { ref } of this.#waiting.splice(0)) ref.fail(this.#error);
    } else if (state === ALIVE) {
      const lost = incarnation === this.#incarnation && route !== this.#route;
      this.#incarnation = incarnation;
      this.#route = route;
      if (lost && this.#sent.size) this.#send([...this.#sent.values()]); // once more, unchanged
      this.#flush();
    }
  }

  onReplies([, incarnation, , replies]) {
    if (incarnation !== this.#incarnation) return;
    for (const [seq, , , results] of replies) {
      const call = this.#sent.get(seq);
      this.#sent.delete(seq);
      if (call?.box) this.#link.drop(call.box);
      for (const [, kind, , value] of call ? results : []) {
        if (kind & LOCATED) this.#settleLater(seq, call.ref);
        else call.ref.take(kind, value);
      }
    }
    this.#send([]); // what the actor need not keep
    this.#flush();
  }

  async #settleLater(seq, ref) {
    this.#unsettled.add(seq);
    await this.#link.settled(ref);
    if (this.#unsettled.delete(seq)) this.#send([]);
  }

  #failCalls(calls, code, text, maybeExecuted) {
    for (const { ref } of calls) ref.fail(new ZrayError(code, text, { maybeExecuted }));
  }

  fail(error) {
    this.#error ??= error;
    for (const { ref } of [...this.#waiting.splice(0), ...this.#sent.values()]) ref.fail(error);
  }
}

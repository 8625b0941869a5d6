// A small client of zray: functions and actor classes that nodes offer by name, from JavaScript.
//
// It has what most programs need and keeps all rules of docs/PROTOCOL.md, but one: where the
// connection is lost, everything unfinished fails. A client that is to survive a restart of the
// head says HELLO again (same process id and incarnation, under the epoch it knows) and tells its
// full state anew; see docs/PROTOCOL.md, "A new session".

import { encode } from "@msgpack/msgpack";
import { createHash, randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { Actor } from "./actor.mjs";
import { openSession } from "./heads.mjs";
import { VERB, ZrayError, connectionPath, loadConnection } from "./session.mjs";
import { ERROR, LOCATED, NONE, Ref, hex, objectId, pack, unpack } from "./values.mjs";

export { ZrayError } from "./session.mjs";

const MINOR = 1; // of the protocol: the first that has NOT_LEADER
const ROLE_DRIVER = 1;
const UNIT = 10_000; // a resource of 1
const INLINE_BYTES_MAX = 64 << 10;
const CHUNK_BYTES = 1 << 20;
const CHUNK_WINDOW = 8;

/** Connect to a head; rejects with a ZrayError that says what is wrong. */
export async function connect(path = connectionPath()) {
  const info = await loadConnection(path);
  const client = new Client(info);
  await client.open();
  return client;
}

export class Client {
  #session;
  #ids = { prefix: randomBytes(8), next: 1n };
  #seq = 0;
  #refs = new Map(); // what this process holds, by hex id
  #served = new Map(); // what it has put: served until FREE, held or not
  #pulls = new Map(); // transfer -> { ref, parts, size }
  #sends = new Map(); // transfer -> { bytes, kind, sent, acknowledged }
  #templates = new Set();
  #actors = new Map();
  #answers = new Map(); // seq of a request -> resolve
  #transfer = 0;
  #failure = null; // why the session ended

  constructor(info) {
    this.info = info;
    this.processId = this.#newId();
  }

  /** A line that a task of this program printed; replace it to have it elsewhere. */
  onLog(name, pid, node, line) {
    console.log(`(${name} pid=${pid}, node=${node}) ${line}`);
  }

  async open() {
    const versions = ["", "zray-js 0.1.0", ""]; // no Python here
    const command = process.argv.slice(1).join(" ");
    const machine = ""; // not shared: workers get neither this directory nor this path
    const job = [command, process.cwd(), [], machine, hostname(), process.pid, "", true, "js"];
    const hello = [1, ROLE_DRIVER, this.processId, 1, NONE, versions, [], null, job, NONE, MINOR];
    const heard = (message) => this.#receive(message);
    const lost = (error) => this.#lost(error);
    this.#session = await openSession(this.info, [VERB.HELLO, 0, ...hello], heard, lost);
    // The full state of a new session: this process holds nothing.
    this.#session.send([VERB.HOLD, 0, this.processId, NONE, true]);
  }

  /** Where the head is that leads. */
  get address() {
    return this.#session.address;
  }

  get epoch() {
    return this.#session.epoch;
  }

  /** End the session; the cluster then ends and frees all that is this program's. */
  close(reason = "the program has ended") {
    return this.#session.close(reason);
  }

  // ---- tasks ---------------------------------------------------------------------------------

  /**
   * Run the function of that name; its result, or an array of numReturns results.
   * Arguments are portable values, or references (the function gets their values).
   */
  submit(name, args = [], kwargs = {}, options = {}) {
    const { numReturns = 1 } = options;
    const template = this.#template(name, options);
    const spec = this.#spec(template, args, kwargs);
    const refs = [];
    for (let index = 0; index < numReturns; index++) refs.push(this.#ref(objectId(spec[0], index)));
    this.#session.send([VERB.SUBMIT, 0, this.processId, this.processId, [spec]]);
    this.#unbox(spec);
    return numReturns === 1 ? refs[0] : refs;
  }

  /** Tell function and options once per session, under an id that stands for just these. */
  #template(name, { cpus = 1, resources = {}, numReturns = 1, maxRetries = 3 }) {
    const amounts = Object.entries({ CPU: cpus, ...resources })
      .map(([resource, amount]) => [resource, Math.round(amount * UNIT)])
      .filter(([, amount]) => amount > 0)
      .sort(([one], [other]) => (one < other ? -1 : 1));
    const functionId = this.#functionId(name);
    const fields = [functionId, name, amounts, numReturns, maxRetries];
    const id = createHash("sha256").update(encode(fields)).digest().subarray(0, 16);
    if (!this.#templates.has(hex(id))) {
      this.#templates.add(hex(id));
      this.#session.send([VERB.TEMPLATE, 0, id, ...fields, "python", true]);
    }
    return id;
  }

  /** What stands for a name where Python has the digest of a pickled function. */
  #functionId(name) {
    return createHash("blake2b512").update(`name:${name}`).digest().subarray(0, 16);
  }

  #spec(template, args, kwargs) {
    const { bytes, dependencies, box } = this.#arguments(args, kwargs);
    return [this.#newId(), template, bytes, dependencies, [], NONE, box !== null];
  }

  /** The task holds its arguments from SUBMIT on; this process need not. */
  #unbox(spec) {
    if (spec[6]) this.drop(this.#refs.get(hex(spec[3][0])));
  }

  /** Arguments as they travel; large ones are an object of their own, the ``box``. */
  #arguments(args, kwargs) {
    const dependencies = [];
    const places = [];
    const plain = (value, place) => {
      if (!(value instanceof Ref)) return value;
      if (!this.#refs.has(hex(value.id))) {
        throw new Error("a reference that was dropped, or the result of a call: pass its value");
      }
      let index = dependencies.findIndex((id) => hex(id) === hex(value.id));
      if (index < 0) index = dependencies.push(value.id) - 1;
      places.push([place, index]);
      return null;
    };
    const list = args.map(plain);
    const named = {};
    for (const [key, value] of Object.entries(kwargs)) named[key] = plain(value, key);
    const bytes = pack(places.length ? [list, named, places] : [list, named]);
    if (bytes.length <= INLINE_BYTES_MAX) return { bytes, dependencies, box: null };
    const box = this.#put(bytes);
    return { bytes: NONE, dependencies: [box.id, ...dependencies], box };
  }

  // ---- objects -------------------------------------------------------------------------------

  /** The value of a reference; rejects with the ZrayError that its task ended with. */
  async get(ref) {
    const { error, kind, bytes } = await ref.arrived;
    if (error) throw error;
    if (kind & ERROR) throw ZrayError.fromRecord(bytes);
    return unpack(bytes);
  }

  /** Store a value; pass the reference to many tasks without sending it again. */
  put(value) {
    return this.#put(pack(value));
  }

  #put(bytes) {
    const ref = this.#ref(objectId(this.#newId()));
    ref.take(0, bytes);
    this.#served.set(hex(ref.id), ref);
    const inline = bytes.length <= INLINE_BYTES_MAX;
    const outcome = [ref.id, inline ? 0 : LOCATED, bytes.length, inline ? bytes : NONE, []];
    this.#session.send([VERB.PUT, 0, this.processId, outcome]);
    return ref;
  }

  /** This program does not need the value any more: without other holders it is freed. */
  drop(ref) {
    if (this.#refs.delete(hex(ref.id))) this.#session.send([VERB.DROP, 0, this.processId, ref.id]);
  }

  #ref(id) {
    const ref = new Ref(id);
    this.#refs.set(hex(id), ref);
    if (this.#failure) ref.fail(this.#failure);
    return ref;
  }

  #settle([id, kind, , value]) {
    const ref = this.#refs.get(hex(id));
    if (!ref || ref.bytes) return; // dropped, or told twice
    if (kind & LOCATED) this.#pull(ref);
    else ref.take(kind, value);
  }

  #pull(ref) {
    this.#transfer += 1;
    this.#pulls.set(this.#transfer, { ref, parts: [], size: 0 });
    this.#session.send([VERB.PULL, 0, this.#transfer, ref.id]);
  }

  #onChunk(transfer, kind, offset, total, data) {
    const pull = this.#pulls.get(transfer);
    if (!pull) return;
    if (offset === 0) Object.assign(pull, { parts: [], size: 0 }); // another source took over
    if (offset !== pull.size) return; // left over from the one before
    pull.parts.push(data);
    pull.size += data.length;
    if (pull.size < total) {
      this.#session.send([VERB.CHUNK_ACK, 0, transfer, pull.size]);
    } else {
      this.#pulls.delete(transfer);
      pull.ref.take(kind, Buffer.concat(pull.parts));
    }
  }

  #onPullFailed(transfer, code, text) {
    this.#sends.delete(transfer); // of our own sending: who asked is gone
    const pull = this.#pulls.get(transfer);
    if (pull && code) {
      this.#pulls.delete(transfer);
      pull.ref.fail(new ZrayError(code, text));
    }
  }

  /** Somebody needs a value that this process has: one that it put, or a result that it got. */
  #onPull(transfer, id) {
    const ref = this.#served.get(hex(id)) ?? this.#refs.get(hex(id));
    if (ref?.bytes) {
      const sending = { bytes: ref.bytes, kind: ref.kind, sent: 0, acknowledged: 0 };
      this.#sends.set(transfer, sending);
      this.#sendChunks(transfer, sending);
    } else {
      this.#session.send([VERB.PULL_FAILED, 0, transfer, "ZR-3005", "it is not here any more"]);
    }
  }

  #sendChunks(transfer, sending) {
    const { bytes, kind } = sending;
    do {
      const end = sending.sent + CHUNK_BYTES;
      if (end > sending.acknowledged + CHUNK_WINDOW * CHUNK_BYTES) return;
      const data = bytes.subarray(sending.sent, end);
      this.#session.send([VERB.CHUNK, 0, transfer, kind, sending.sent, bytes.length, data, []]);
      sending.sent += data.length;
    } while (sending.sent < bytes.length);
    this.#sends.delete(transfer);
  }

  #onChunkAck(transfer, offset) {
    const sending = this.#sends.get(transfer);
    if (!sending) return;
    sending.acknowledged = Math.max(sending.acknowledged, offset);
    this.#sendChunks(transfer, sending);
  }

  // ---- actors --------------------------------------------------------------------------------

  /** Make an actor of the class of that name; resolves when the cluster knows it. */
  async createActor(className, args = [], kwargs = {}, options = {}) {
    const { name = "", namespace = "js", maxRestarts = 0, maxConcurrency = 1 } = options;
    const template = this.#template(className, { ...options, maxRetries: 0 });
    const task = this.#spec(template, args, kwargs);
    const info = [
      ...[className, this.#functionId(className), [], name, namespace, false],
      ...[maxRestarts, 0, -1, maxConcurrency, false, [], true],
    ];
    const actor = this.#actor(task[0], className);
    const [, , , , , code, text] = await this.#ask((seq) => [
      ...[VERB.CREATE_ACTOR, seq, this.processId, this.processId, task, info, false],
    ]);
    this.#unbox(task);
    if (!code) return actor;
    this.#actors.delete(hex(task[0]));
    this.#refs.delete(hex(objectId(task[0])));
    throw new ZrayError(code, text);
  }

  /** The living actor of that name, or null. */
  async findActor(name, namespace = "js") {
    const [, , , actorId, info] = await this.#ask((seq) => [
      ...[VERB.FIND_ACTOR, seq, this.processId, namespace, name],
    ]);
    if (!info) return null;
    const actor = this.#actor(actorId, info[0]);
    this.#session.send([VERB.ACTOR_WATCH, 0, this.processId, [actorId]]);
    return actor;
  }

  #actor(id, className) {
    let actor = this.#actors.get(hex(id));
    if (!actor) {
      actor = new Actor(id, className, {
        processId: this.processId,
        send: (message) => this.#session.send(message),
        pack: (args, kwargs) => this.#arguments(args, kwargs),
        drop: (ref) => this.drop(ref),
        newId: () => this.#newId(),
        settled: (ref) => this.#heldElsewhere(ref),
        leave: () => this.drop({ id: objectId(id) }),
      });
      this.#actors.set(hex(id), actor);
      this.#refs.set(hex(objectId(id)), new Ref(objectId(id))); // the handle, which keeps it alive
    }
    return actor;
  }

  /** A call's large result stays with the node until this process's own hold of it is known. */
  async #heldElsewhere(ref) {
    this.#refs.set(hex(ref.id), ref);
    this.#session.send([VERB.HOLD, 0, this.processId, ref.id, false]);
    this.#pull(ref);
    await this.#ask((seq) => [VERB.SYNC, seq]);
  }

  #ask(make) {
    this.#seq += 1;
    const seq = this.#seq;
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      this.#answers.set(seq, { resolve, reject });
      return this.#session.send(make(seq));
    });
  }

  // ---- in ------------------------------------------------------------------------------------

  #receive(message) {
    const [verb, seq, ...fields] = message;
    switch (verb) {
      case VERB.RESULT: {
        const [target, outcomes] = fields;
        for (const outcome of outcomes) this.#settle(outcome);
        if (!seq) return; // a part: the last one is acknowledged for all
        return this.#session.send([VERB.RESULT_ACK, 0, target, seq]);
      }
      case VERB.CHUNK: return this.#onChunk(...fields);
      case VERB.PULL_FAILED: return this.#onPullFailed(...fields);
      case VERB.PULL: return this.#onPull(...fields);
      case VERB.CHUNK_ACK: return this.#onChunkAck(...fields);
      case VERB.FREE: return this.#onFree(fields[0]);
      case VERB.ACTOR_STATE: return this.#actors.get(hex(fields[1]))?.onState(fields);
      case VERB.REPLIES: return this.#actors.get(hex(fields[0]))?.onReplies(fields);
      case VERB.ACTOR_CREATED:
      case VERB.ACTOR_FOUND:
      case VERB.SYNCED: {
        this.#answers.get(fields[0])?.resolve(message);
        return this.#answers.delete(fields[0]);
      }
      case VERB.LOG: {
        const [, name, pid, node, , lines] = fields;
        for (const line of lines) this.onLog(name, pid, node, line);
        return;
      }
      case VERB.NOTICE: return console.error(`${fields[0]} ${fields[1]}`);
      default: // PONG, and what later heads may add
    }
  }

  #onFree(ids) {
    for (let at = 0; at < ids.length; at += 20) this.#served.delete(hex(ids.subarray(at, at + 20)));
  }

  #lost(error) {
    this.#failure = error;
    for (const ref of this.#refs.values()) ref.fail(error);
    for (const { reject } of this.#answers.values()) reject(error);
    for (const actor of this.#actors.values()) actor.fail(error);
  }

  #newId() {
    const id = Buffer.alloc(16);
    id.set(this.#ids.prefix);
    id.writeBigUInt64BE(this.#ids.next++, 8);
    return id;
  }
}

// Values and references: portable values as bytes, ids, and what became of an object.
// See docs/PROTOCOL.md, "Values".

import { decode, encode } from "@msgpack/msgpack";
import { ZrayError } from "./session.mjs";

export const ERROR = 1; // flags of an outcome's kind
export const LOCATED = 2;
export const NONE = new Uint8Array(0);

const PORTABLE = 0x4d; // "M": the first byte of a portable value

export const hex = (bytes) => Buffer.from(bytes).toString("hex");

/** The id of what a task returns: its own, and the place among its returns. */
export function objectId(taskId, index = 0) {
  const id = Buffer.alloc(20);
  id.set(taskId);
  id.writeUInt32BE(index, 16);
  return id;
}

/** The bytes of a portable value: null, boolean, number, string, Uint8Array, array, object. */
export function pack(value) {
  return Buffer.concat([Buffer.of(PORTABLE), encode(value)]);
}

/** The value of such bytes. */
export function unpack(bytes) {
  if (bytes[0] === PORTABLE) return decode(bytes.subarray(1));
  throw new ZrayError("ZR-3201", "the value was made for Python and cannot be read here");
}

/** An object of the cluster: the result of a task or call, or a value that was put. */
export class Ref {
  constructor(id) {
    this.id = id;
    this.bytes = null; // once it is here
    this.arrived = new Promise((resolve) => (this.settle = resolve));
  }

  /** ``kind`` as in an outcome; never rejects, so that a result may stay unread. */
  take(kind, bytes) {
    this.kind = kind;
    this.bytes = bytes;
    this.settle({ kind, bytes });
  }

  fail(error) {
    this.settle({ error });
  }
}

// One session with a zray head: connection file, encrypted socket, payloads of messages.
// Knows nothing of tasks, objects or actors; see docs/PROTOCOL.md, "Session".

import { decode, encode } from "@msgpack/msgpack";
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { Dealer } from "zeromq";

export const VERB = {
  HELLO: 1, WELCOME: 2, REFUSED: 3, REJOIN: 4, PING: 5, PONG: 6, GOODBYE: 7, REJECTED: 8,
  TEMPLATE: 16, SUBMIT: 19, RESULT: 20, RESULT_ACK: 21, HOLD: 23, DROP: 24, PUT: 26,
  PULL: 27, CHUNK: 28, CHUNK_ACK: 29, PULL_FAILED: 30, NOTICE: 31, LOG: 32,
  CREATE_ACTOR: 38, ACTOR_CREATED: 39, ACTOR_WATCH: 40, ACTOR_STATE: 41, FIND_ACTOR: 43,
  ACTOR_FOUND: 44, FREE: 55, SHUTDOWN: 62, SYNC: 64, SYNCED: 65, CALLS: 66, REPLIES: 67,
  NOT_LEADER: 243, STEPPING_DOWN: 246,
};

const KIND = "zray1"; // the first frame of every multipart message
const PROTOCOL = 1;
const FRAME_BYTES_MAX = 64 << 20;
const CURVE_OVERHEAD_BYTES = 33;
const ANSWER_MS = 5000;

/** An error with a stable code: the cluster's (ZR-xxxx), with the fields of its ErrorRecord. */
export class ZrayError extends Error {
  constructor(code, message, fields = {}) {
    super(message);
    this.name = "ZrayError";
    this.code = code;
    Object.assign(this, fields);
  }

  /** From the bytes of an ErrorRecord; the pickled Python exception in it is left alone. */
  static fromRecord(bytes) {
    const [code, message, typeName, functionName, traceback, node, pid, , note, maybeExecuted] =
      decode(bytes);
    const fields = { typeName, functionName, traceback, node, pid, note, maybeExecuted };
    return new ZrayError(code, message, fields);
  }
}

// ---- connection file -------------------------------------------------------------------------

/** Where the connection file of this machine's head is, unless ZRAY_CONNECTION_FILE says it. */
export function connectionPath(environment = process.env) {
  if (environment.ZRAY_CONNECTION_FILE) return environment.ZRAY_CONNECTION_FILE;
  const home = environment.ZRAY_HOME || join(homedir(), ".zray");
  return join(home, "clusters", "default", "connection.json");
}

/** The head's addresses and the keys for it. */
export async function loadConnection(path) {
  let file;
  try {
    file = await open(path, "r");
  } catch (error) {
    throw new ZrayError("ZR-4004", `cannot read ${path}: ${error.code}; is a head running here?`);
  }
  try {
    if ((await file.stat()).mode & 0o077) {
      throw new ZrayError("ZR-4004", `${path} holds a secret; run: chmod 600 ${path}`);
    }
    const info = JSON.parse(await file.readFile("utf8"));
    for (const key of ["server_public", "client_public", "client_secret"]) {
      if (typeof info[key] !== "string" || info[key].length !== 40) {
        throw new ZrayError("ZR-4004", `${path}: ${key} must be a key of 40 Z85 characters`);
      }
    }
    return info;
  } finally {
    await file.close();
  }
}

/** Names a public key in a message, as zray's own messages do. */
export function fingerprint(publicKey) {
  return createHash("sha256").update(publicKey).digest("hex").slice(0, 12);
}

// ---- session ---------------------------------------------------------------------------------

/** Sends messages, all of one turn of the event loop together; hands over what comes in. */
export class Session {
  #info;
  #address;
  #socket;
  #outbox = [];
  #sending = null;
  #pinger;
  #welcome = null; // resolve and reject, while HELLO is not answered
  #parted = null; // to be called when GOODBYE is answered, or nothing more comes
  #ended = false;

  /** onMessage(message) for each message; onEnd(error) once, where the head has welcomed it, unless
   * close() was called. */
  constructor(info, address, onMessage, onEnd) {
    this.#info = info;
    this.#address = address;
    this.onMessage = onMessage;
    this.onEnd = onEnd;
    this.epoch = 0;
    this.#socket = new Dealer({
      linger: 0,
      reconnectInterval: -1, // one connection is one session; another would need HELLO first
      maxMessageSize: FRAME_BYTES_MAX + CURVE_OVERHEAD_BYTES,
      heartbeatInterval: 2000,
      heartbeatTimeout: 6000,
      heartbeatTimeToLive: 6000,
      connectTimeout: ANSWER_MS,
      ipv6: this.#address.startsWith("["),
      curveServerKey: info.server_public,
      curvePublicKey: info.client_public,
      curveSecretKey: info.client_secret,
    });
  }

  get address() {
    return this.#address;
  }

  /** Connect and say HELLO; resolves with WELCOME, or rejects with the reason. If the head only
   * stands by, that has ``heads``, as NOT_LEADER has them. */
  async open(hello) {
    const welcome = new Promise((resolve, reject) => (this.#welcome = { resolve, reject }));
    this.#watch();
    this.#socket.connect(`tcp://${this.#address}`);
    this.send(hello);
    this.#receive();
    const timer = setTimeout(
      () => this.end("ZR-1503", `the head at ${this.#address} did not answer in time`),
      ANSWER_MS,
    );
    try {
      return await welcome;
    } finally {
      clearTimeout(timer);
    }
  }

  #watch() {
    const events = this.#socket.events;
    const key = fingerprint(this.#info.client_public);
    events.on("handshake:error:auth", () =>
      this.end("ZR-1401", `the head at ${this.#address} refused this client's key (fingerprint ` +
        `${key}): the connection file is of another cluster or out of date`));
    const wrong = () =>
      this.end("ZR-1402", `what answers at ${this.#address} does not have the key that the ` +
        "connection file names: it is another cluster's head");
    events.on("handshake:error:protocol", wrong);
    events.on("handshake:error:other", wrong);
    events.on("close", () => this.end("ZR-1405", `nothing listens at ${this.#address}`));
    events.on("disconnect", () => this.end("ZR-1500", "the connection to the head was lost"));
  }

  /** Queue messages: arrays [verb, seq, fields...]. */
  send(...messages) {
    this.#outbox.push(...messages);
    this.#sending ??= Promise.resolve().then(() => this.#flush());
  }

  async #flush() {
    try {
      while (this.#outbox.length && !this.#socket.closed) {
        const messages = this.#outbox;
        this.#outbox = [];
        // A socket takes one send() at a time; what is queued meanwhile goes together.
        await this.#socket.send([KIND, encode([this.epoch, messages])]);
      }
    } catch (error) {
      this.end("ZR-1500", `cannot send: ${error.message}`);
    } finally {
      this.#sending = null;
    }
  }

  async #receive() {
    try {
      for await (const frames of this.#socket) {
        const [epoch, messages] = decode(frames[1]);
        for (const message of messages) this.#handle(epoch, message);
      }
    } catch (error) {
      this.end("ZR-2001", `what the head sent cannot be read: ${error.stack}`);
    }
  }

  #handle(epoch, message) {
    const [verb, , first, second, third] = message;
    if (verb === VERB.WELCOME) {
      this.epoch = epoch; // every later payload carries it
      const [, , , , , pingSeconds] = message;
      this.#pinger = setInterval(
        () => this.send([VERB.PING, 0, Date.now() / 1000]),
        pingSeconds * 1000,
      );
      this.#welcome.resolve(message);
      this.#welcome = null;
    } else if (verb === VERB.NOT_LEADER) this.end("ZR-1504", third, { heads: second });
    else if (verb === VERB.REFUSED) this.end(first, second);
    else if (verb === VERB.REJOIN) this.end("ZR-1500", `the head asks for a new session: ${first}`);
    else if (verb === VERB.REJECTED) this.end(second, `the head refused a message: ${third}`);
    else if (verb === VERB.STEPPING_DOWN) this.end("ZR-1500", "another head is to lead");
    else if (verb === VERB.GOODBYE) this.#parted?.();
    else if (verb === VERB.SHUTDOWN) this.end("ZR-3301", `the cluster was shut down: ${first}`);
    else this.onMessage(message);
  }

  /** The session is over, for this reason. */
  end(code, text, fields = {}) {
    if (this.#ended) return;
    const error = new ZrayError(code, text, fields);
    this.#stop();
    if (this.#welcome) this.#welcome.reject(error);
    else this.onEnd(error);
  }

  /** Send what is left, and end once the head has heard it. */
  async close(reason) {
    if (this.#ended) return;
    const heard = new Promise((resolve) => (this.#parted = resolve));
    this.send([VERB.GOODBYE, 0, reason]);
    const timer = setTimeout(this.#parted, ANSWER_MS);
    await heard;
    clearTimeout(timer);
    this.#stop();
  }

  #stop() {
    this.#ended = true;
    this.#parted?.();
    clearInterval(this.#pinger);
    this.#socket.close();
  }
}

/* The HTTP API as functions. Owns paths, the anti-forgery token, and errors as one kind of object. */

const BASE = new URL("api/v1/", document.baseURI);
const PATIENCE_MS = 20_000;

/** An answer that is an error, or none at all (status 0). `next` says what to do. */
export class ApiError extends Error {
  constructor(status, told) {
    super(told.message ?? "the dashboard process did not answer");
    this.status = status;
    this.code = told.code ?? "";
    this.effect = told.effect ?? "";
    this.next = told.next ?? "";
    this.ageS = told.age_s ?? null;
    this.why = told.why ?? null;
  }
}

/** The address of a resource: path parts are encoded, parameters may be lists. */
export function address(parts, parameters = {}) {
  const url = new URL(parts.map(encodeURIComponent).join("/"), BASE);
  for (const [key, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") url.searchParams.append(key, one);
  }
  return url;
}

/** Hears of each answer: (status). The connection's state is made of that. */
export const answers = new EventTarget();

async function request(url, options, patienceMs = PATIENCE_MS) {
  // A timer of its own: what AbortSignal.timeout() makes would keep the asking view until it is over.
  const patience = new AbortController();
  const giveUp = () => patience.abort();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    giveUp();
  }, patienceMs);
  options.signal?.addEventListener("abort", giveUp);
  let response;
  let told;
  try {
    options.signal?.throwIfAborted();
    response = await fetch(url, { credentials: "same-origin", ...options, signal: patience.signal });
    told = await response.json();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    if (response) throw new ApiError(response.status, { message: `the dashboard answered ${response.status} with something else than data` });
    answers.dispatchEvent(new CustomEvent("answer", { detail: 0 }));
    throw new ApiError(0, late ? { message: `no answer within ${patienceMs / 1000} s`, next: "It is tried again; see zray status." } : { next: "It is tried again." });
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", giveUp);
  }
  answers.dispatchEvent(new CustomEvent("answer", { detail: response.status }));
  if (!response.ok) throw new ApiError(response.status, { ...told?.error, why: told?.why });
  return told;
}

/** GET of JSON. Raises ApiError; AbortError where `signal` says so. */
export function get(parts, parameters, signal = null, patienceMs = undefined) {
  return request(address(parts, parameters), signal ? { signal } : {}, patienceMs);
}

let session = null;

/** The session: csrf, version, cluster. */
export async function openSession() {
  session = await get(["session"]);
  return session;
}

/** POST of JSON. */
export async function post(parts, body) {
  if (session === null) await openSession();
  return request(address(parts), {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Zray-CSRF": session.csrf },
    body: JSON.stringify(body),
  });
}

/** Whether an error only says that nobody wants the answer any more. */
export function isAborted(error) {
  return error?.name === "AbortError";
}

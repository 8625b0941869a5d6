// Finds the head that leads: one cluster may have several, of which the others stand by and say so.
// See docs/PROTOCOL.md, "Several heads".

import { Session, ZrayError } from "./session.mjs";

const LEADER_MS = 20_000; // heads need a moment to agree on who leads
const ROUND_MS = 250; // between two looks at all of them
const HINTS_MAX = 3; // a head that stands by may be wrong about who leads

/** A session with the head that leads, among those that the connection file names and those that
 * they tell of; rejects with what is wrong with the first, or ZR-1504 where all stand by. */
export async function openSession(info, hello, onMessage, onEnd) {
  const given = [...info.addresses, ...(info.heads ?? [])];
  const deadline = Date.now() + LEADER_MS;
  const told = new Set(); // by heads that stand by
  let standby = null;
  for (;;) {
    const left = [...new Set([...given, ...told])];
    const tried = new Set();
    let first = null;
    let hints = 0;
    while (left.length) {
      const address = left.shift();
      if (tried.has(address)) continue;
      tried.add(address);
      const session = new Session(info, address, onMessage, onEnd);
      try {
        await session.open(hello);
        return session;
      } catch (error) {
        if (!error.heads) {
          first ??= error;
          continue;
        }
        standby = error;
        for (const [, addresses, , , , , leads] of error.heads) {
          for (const one of addresses) told.add(one);
          if (leads && hints++ < HINTS_MAX) left.unshift(...addresses);
        }
      }
    }
    if (!standby) throw first;
    if (Date.now() > deadline) {
      const said = standby.message;
      throw new ZrayError("ZR-1504", `no head was found that leads; one said: ${said}`);
    }
    await new Promise((resolve) => setTimeout(resolve, ROUND_MS));
  }
}

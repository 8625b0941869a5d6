// Calls Python functions and an actor from JavaScript. Start a cluster that offers them first:
//
//     cd examples/clients && zray-head --import hello_offers
//
// and in another terminal:
//
//     cd examples/clients/node && npm ci && node hello.mjs [connection.json]
//
// It ends with 0 only if everything was as it should be.

import assert from "node:assert/strict";
import { ZrayError, connect } from "./zray.mjs";

/** What the promise rejects with. */
async function errorOf(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("an error was expected, and there was none");
}

async function functions(client) {
  const words = client.submit("hello.count", ["the cat and the hat"], { least: 2 });
  const counted = await client.get(words);
  console.log("hello.count(...) =", JSON.stringify(counted));
  assert.deepEqual(counted, { the: 2 });

  // A reference as an argument: the function gets its value, which need not pass through here.
  const large = client.submit("hello.repeat", [Buffer.from("zray"), 1_000_000]);
  const size = await client.get(client.submit("hello.size", [large]));
  console.log("hello.size(hello.repeat(...)) =", size);
  assert.equal(size, 4_000_000);

  const bytes = await client.get(large); // pulled in chunks of 1 MiB
  console.log("hello.repeat(...) =", bytes.length, "bytes");
  assert.ok(bytes.length === size && Buffer.from(bytes).equals(Buffer.alloc(size, "zray")));
  client.drop(large);

  const stored = client.put(Buffer.alloc(20_000_000)); // served from here in chunks
  assert.equal(await client.get(client.submit("hello.size", [stored])), 20_000_000);
  client.drop(stored);
  console.log("hello.size(put(20 MB)) = 20000000");

  const lengths = [...Array(1000).keys()];
  const refs = lengths.map((length) => client.submit("hello.size", [Buffer.alloc(length)]));
  const sizes = await Promise.all(refs.map((ref) => client.get(ref)));
  assert.deepEqual(sizes, lengths);
  refs.forEach((ref) => client.drop(ref));
  console.log("1000 tasks at once: all right");
}

async function errors(client) {
  const raised = await errorOf(client.get(client.submit("hello.fail", ["Atlantis"])));
  assert.ok(raised instanceof ZrayError);
  const { code, typeName, functionName, message, node } = raised;
  const shown = { code, typeName, functionName, message, node };
  console.log("hello.fail(...) raised", JSON.stringify(shown));
  console.log(raised.traceback.trimEnd().replace(/^/gm, "    | "));
  assert.deepEqual([code, typeName, message], ["ZR-3001", "LookupError", "no town named Atlantis"]);
  assert.match(raised.traceback, /hello_offers\.py", line \d+, in fail/);

  const unknown = await errorOf(client.get(client.submit("hello.cuont", ["a"])));
  console.log("hello.cuont(...) raised", unknown.code, unknown.message);
  assert.equal(unknown.code, "ZR-3008");
}

async function actors(client) {
  const names = [["north", "south"]];
  const totals = await client.createActor("hello.Totals", names, {}, { name: "totals" });
  const calls = [1, 2, 3, 4].map((amount) => totals.call("add", ["north", amount]));
  const sums = await Promise.all(calls.map((ref) => client.get(ref)));
  console.log("Totals.add(north, 1..4) =", JSON.stringify(sums));
  assert.deepEqual(sums, [1, 3, 6, 10]); // in the order of the calls

  const same = await client.findActor("totals");
  const half = await client.get(same.call("add", ["south"], { amount: 0.5 }));
  assert.equal(half, 0.5);
  console.log("Totals.totals() =", JSON.stringify(await client.get(totals.call("totals"))));

  const raised = await errorOf(client.get(totals.call("add", ["west"])));
  console.log("Totals.add(west) raised", raised.code, raised.typeName, raised.message);
  assert.equal(raised.typeName, "KeyError");

  const history = await client.get(totals.call("history", [20_000]));
  assert.equal(history.length, 20_000);
  assert.deepEqual(history[19_999], { north: 10, south: 0.5 });
  console.log("Totals.history(20000) =", history.length, "rows");

  const unmade = await client.createActor("hello.Totals", []); // it needs the names
  const dead = await errorOf(client.get(unmade.call("totals")));
  console.log("Totals() without its argument:", dead.code, "because of", dead.cause.typeName);
  assert.deepEqual([dead.code, dead.cause.typeName], ["ZR-3402", "TypeError"]);
  totals.release();
}

const client = await connect(process.argv[2]).catch((error) => {
  console.error(`${error.code ?? ""} ${error.message}`);
  process.exit(1);
});
console.log(`connected to ${client.info.name} at ${client.address}, epoch ${client.epoch}`);
try {
  await functions(client);
  await errors(client);
  await actors(client);
  console.log("all right");
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await client.close();
}

/* Sorting of many rows a slice at a time, so that no frame of the page waits for it. */

const SLICE_MS = 8;

/** The order of rows by a key (numbers or strings; null last), stable. Resolves to a Uint32Array of indices, or to
    null where `stopped` says that nobody wants it any more. */
export async function order(rows, keyOf, descending, stopped = () => false) {
  const clock = new Slices(stopped);
  const total = rows.length;
  const keys = new Array(total);
  for (let i = 0; i < total; i++) {
    keys[i] = keyOf(rows[i]);
    if ((i & 1023) === 0 && (await clock.over())) return null;
  }
  const sign = descending ? -1 : 1;
  const before = (a, b) => {
    const [left, right] = [keys[a], keys[b]];
    if (left === right) return true;
    if (left === null || left === undefined) return false;
    if (right === null || right === undefined) return true;
    return left < right ? sign > 0 : sign < 0;
  };
  let from = Uint32Array.from({ length: total }, (_, i) => i);
  let to = new Uint32Array(total);
  for (let width = 1; width < total; width *= 2) {
    for (let low = 0; low < total; low += 2 * width) {
      const middle = Math.min(low + width, total);
      const high = Math.min(low + 2 * width, total);
      let [left, right] = [low, middle];
      for (let place = low; place < high; place++) {
        if (left < middle && (right >= high || before(from[left], from[right]))) to[place] = from[left++];
        else to[place] = from[right++];
        if ((place & 1023) === 0 && (await clock.over())) return null;
      }
    }
    [from, to] = [to, from];
  }
  return from;
}

class Slices {
  constructor(stopped) {
    this.stopped = stopped;
    this.began = performance.now();
  }

  async over() {
    if (performance.now() - this.began < SLICE_MS) return false;
    await new Promise((resolve) => setTimeout(resolve));
    this.began = performance.now();
    return this.stopped();
  }
}

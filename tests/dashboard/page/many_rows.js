/* Puts a table of very many rows on the page; a test scrolls and sorts it a step at a time. */
async (many) => {
  const { VirtualTable } = await import("/static/js/parts/virtual_table.js");
  const rows = Array.from({ length: many }, (_, i) => ({ id: i, name: `task ${i}`, key: (i * 7919) % many }));
  const table = new VirtualTable({
    label: "Many",
    open: () => {},
    columns: [
      { name: "name", title: "Name", width: "2fr", text: (row) => row.name, href: (row) => `#/x/${row.id}` },
      { name: "key", title: "Key", width: "1fr", number: true, sort: (row) => row.key, text: (row) => String(row.key) },
    ],
  });
  const grid = table.element;
  document.querySelector("main").replaceChildren(grid);
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  await frame();
  await frame();
  table.set(rows, many);
  globalThis.many = {
    scroll: async (share) => {
      grid.scrollTop = grid.scrollHeight * share;
      await frame();
      await frame();
    },
    // Sorts, and counts the frames meanwhile.
    sort: async () => {
      let [frames, sorting] = [0, true];
      const count = () => sorting && (frames++, requestAnimationFrame(count));
      requestAnimationFrame(count);
      await table.sortBy("key", false);
      sorting = false;
      return frames;
    },
    names: () =>
      [...grid.querySelectorAll(".rows .row:not([hidden])")]
        .sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)
        .map((row) => row.querySelector("a").textContent),
    elements: () => grid.querySelectorAll(".rows .row").length,
  };
}

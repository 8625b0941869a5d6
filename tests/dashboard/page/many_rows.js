/* Scrolls a table of very many rows from end to end, sorts it, and says what the longest frame took. */
async (many) => {
  const { VirtualTable } = await import("/static/js/parts/virtual_table.js");
  const rows = Array.from({ length: many }, (_, i) => ({ number: i, name: `task ${i}`, key: (i * 7919) % many }));
  const table = new VirtualTable({
    label: "Many",
    open: () => {},
    columns: [
      { name: "name", title: "Name", width: "2fr", text: (row) => row.name, href: (row) => `#/x/${row.number}` },
      { name: "key", title: "Key", width: "1fr", number: true, sort: (row) => row.key, text: (row) => String(row.key) },
    ],
  });
  document.querySelector("main").replaceChildren(table.element);
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  await frame(); await frame();
  let [longest, before] = [0, performance.now()];
  let measuring = true;
  (async () => {
    while (measuring) {
      const now = await frame();
      longest = Math.max(longest, now - before);
      before = now;
    }
  })();
  table.set(rows, many);
  const grid = table.element;
  for (let i = 0; i <= 60; i++) {
    grid.scrollTop = (grid.scrollHeight * i) / 60;
    await frame();
  }
  await frame();
  const last = [...grid.querySelectorAll(".row:not([hidden])")].map((row) => row.innerText.split("\n")[0]).sort((a, b) => a.length - b.length || (a < b ? -1 : 1)).at(-1);
  await table.sortBy("key", false);
  grid.scrollTop = 0;
  await frame(); await frame();
  measuring = false;
  const first = grid.querySelector('[aria-rowindex="2"] a').textContent;
  const elements = grid.querySelectorAll('.rows .row').length;
  table.close();
  return { longest_ms: longest, elements, last, sorted: first };
}

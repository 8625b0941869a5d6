/* Addresses within the page: #/tasks, #/tasks/ID, #/tasks?state=FAILED. */

/** The link to a view, a thing of it, and parameters. */
export function link(view, id = "", parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value)).toString();
  return `#/${view}${id ? `/${encodeURIComponent(id)}` : ""}${query ? `?${query}` : ""}`;
}

/** What the address says: view, id and parameters. */
export function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [view = "", id = ""] = path.split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return { view: view || "overview", id, parameters: Object.fromEntries(new URLSearchParams(query)) };
}

/** Put other parameters into the address without a new entry in the history, and without a new view. */
export function amend(parameters) {
  const now = route();
  history.replaceState(null, "", link(now.view, now.id, parameters));
}

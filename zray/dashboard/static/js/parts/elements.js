/* Elements made by script. Owns the only way in which texts get into the page: as text nodes.
   Nothing here, or elsewhere in the page, parses markup. */

const SVG = "http://www.w3.org/2000/svg";
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** A text as people may see it: characters that would reorder or hide others are replaced. */
export function shown(text) {
  return String(text).replace(CONTROL, "\ufffd");
}

/** An element with properties and children. Properties that start with "on" are listeners;
    "class", "data-..." and others are attributes; "style" is an object, set through the CSSOM. */
export function el(name, properties = null, ...children) {
  return filled(document.createElement(name), properties, children);
}

/** The same for pictures. */
export function svg(name, properties = null, ...children) {
  return filled(document.createElementNS(SVG, name), properties, children);
}

function filled(element, properties, children) {
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [name, one] of Object.entries(value)) element.style.setProperty(name, one);
    else if (key === "value") element.value = value;
    else if (key === "checked") element.checked = value;
    else element.setAttribute(key, value === true ? "" : shown(value));
  }
  add(element, children);
  return element;
}

/** Append children: elements, texts, numbers, lists of these; null and false are left out. */
export function add(element, children) {
  for (const child of [children].flat(4)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : shown(child));
  }
}

/** Put children in the place of what is there. */
export function replace(element, ...children) {
  element.textContent = "";
  add(element, children);
  return element;
}

/** Set a text only where it has changed, so that nothing is laid out again without need. */
export function say(element, text) {
  const next = shown(text);
  if (element.textContent !== next) element.textContent = next;
}

const ICONS = {
  overview: "M3 13h4l2-7 4 14 3-9 1.5 2H21",
  nodes: "M4 4h16v6H4zM4 14h16v6H4zM8 7h.01M8 17h.01",
  tasks: "M4 6h2M4 12h2M4 18h2M10 6h10M10 12h10M10 18h10",
  actors: "M12 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM5 21a7 7 0 0 1 14 0",
  objects: "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9",
  jobs: "M4 8h16v11H4zM9 8V5h6v3M4 13h16",
  placement_groups: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  logs: "M5 4h14v16H5zM9 9h6M9 13h6M9 17h3",
  events: "M12 4v8l5 3M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z",
  workers: "M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4",
  timeline: "M4 6h9M8 12h10M13 18h7",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4",
  menu: "M4 7h16M4 12h16M4 17h16",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2v2M12 20v2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M2 12h2M20 12h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4",
  moon: "M20 14.5A8.5 8.5 0 1 1 9.5 4 7 7 0 0 0 20 14.5z",
  auto: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 3v18M12 7h6M12 12h9M12 17h6",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  close: "M6 6l12 12M18 6L6 18",
  refresh: "M20 11a8 8 0 1 0-2 6M20 5v6h-6",
};

/** An icon that says nothing by itself; whoever uses it gives a name beside it. */
export function icon(name) {
  return svg("svg", { viewBox: "0 0 24 24", class: "icon-shape", "aria-hidden": "true", focusable: "false" }, svg("path", { d: ICONS[name] }));
}

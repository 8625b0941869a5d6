/* Which theme the page has: the system's, light or dark; remembered in this browser. */

const KEY = "zray-theme";
const ORDER = ["auto", "light", "dark"];

function stored() {
  try {
    const value = localStorage.getItem(KEY);
    return ORDER.includes(value) ? value : "auto";
  } catch {
    return "auto"; // no storage here: the choice lasts as long as the page
  }
}

let chosen = stored();
export const themes = new EventTarget();

export function theme() {
  return chosen;
}

export function isDark() {
  return chosen === "dark" || (chosen === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
}

export function apply() {
  if (chosen === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  themes.dispatchEvent(new CustomEvent("change"));
}

export function turn() {
  chosen = ORDER[(ORDER.indexOf(chosen) + 1) % ORDER.length];
  try {
    localStorage.setItem(KEY, chosen);
  } catch {
    // as above
  }
  apply();
  return chosen;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => themes.dispatchEvent(new CustomEvent("change")));

// Entry point: the theme button, the offline banner, relative times, and the router.

import { watchConnection } from "./api.js";
import { setText } from "./dom.js";
import { ago } from "./format.js";
import { start } from "./router.js";

const THEMES = { "": "System", light: "Light", dark: "Dark" };
const MINUTE = 60_000; // milliseconds

function addThemeButton(button) {
  const root = document.documentElement;
  const label = () => {
    const name = THEMES[root.dataset.theme ?? ""];
    button.textContent = `◐ ${name}`;
    button.setAttribute("aria-label", `Theme: ${name.toLowerCase()}`);
  };
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(root.dataset.theme ?? "") + 1) % names.length];
    next ? (root.dataset.theme = next) : delete root.dataset.theme;
    label();
    dispatchEvent(new Event("theme")); // canvases redraw in the new colours
    store(next);
  });
  label();
}

function store(theme) {
  try {
    theme ? localStorage.setItem("theme", theme) : localStorage.removeItem("theme");
  } catch {
    // The browser blocks storage, so the theme lasts until the page is reloaded.
  }
}

function showOffline(banner) {
  watchConnection((offline) => {
    banner.hidden = !offline;
    banner.textContent = offline ? "The API does not answer. This page reconnects automatically." : "";
  });
}

/** Keep times such as "3 minutes ago" current on a page that stays open. */
function updateTimes() {
  for (const time of document.querySelectorAll("time")) setText(time, ago(time.dateTime));
}

addThemeButton(document.getElementById("theme"));
showOffline(document.getElementById("offline"));
setInterval(updateTimes, MINUTE);
start(document.getElementById("main"));

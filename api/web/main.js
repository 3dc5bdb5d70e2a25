// The frame: the switch of themes, the notice that the API is away, and the router.

import { watchConnection } from "./api.js";
import { start } from "./router.js";

const THEMES = { "": "System", light: "Light", dark: "Dark" };

function switchThemes(button) {
  const root = document.documentElement;
  const tell = () => {
    const name = THEMES[root.dataset.theme ?? ""];
    button.textContent = `◐ ${name}`;
    button.setAttribute("aria-label", `Theme: ${name.toLowerCase()}`);
  };
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(root.dataset.theme ?? "") + 1) % names.length];
    next ? (root.dataset.theme = next) : delete root.dataset.theme;
    tell();
    dispatchEvent(new Event("theme")); // what is drawn on a canvas is drawn anew
    keep(next);
  });
  tell();
}

function keep(theme) {
  try {
    theme ? localStorage.setItem("theme", theme) : localStorage.removeItem("theme");
  } catch {
    // The browser keeps nothing for this page: the theme lasts until it is loaded again.
  }
}

function tellOfConnection(banner) {
  watchConnection((away) => {
    banner.hidden = !away;
    banner.textContent = away ? "The API does not answer; this page goes on as soon as it does." : "";
  });
}

switchThemes(document.getElementById("theme"));
tellOfConnection(document.getElementById("offline"));
start(document.getElementById("main"));

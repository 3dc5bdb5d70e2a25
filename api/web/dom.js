// Create and fill elements, and show the states that every view has: loading, empty and failed.

import { ago, instant } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * Create an HTML element. Attributes such as `onclick` add listeners. The value true sets an attribute without a value;
 * false, null and undefined set none.
 */
export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);

/** Create an SVG element. */
export const s = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

function build(element, attributes = {}, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach(([key, text]) => element.style.setProperty(key, text));
    else if (name === "value" && "value" in element) element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Replace all children of an element. */
export function fill(element, ...children) {
  element.replaceChildren(
    ...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** Like `fill`, but keep the focus: on the control with the same text as before, or else on the first control. */
export function refill(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement.textContent : null;
  fill(element, ...children);
  if (focused === null) return;
  const controls = [...element.querySelectorAll("a, button")];
  (controls.find((control) => control.textContent === focused) ?? controls[0])?.focus();
}

/** Set the text of an element if it differs, so that a screen reader does not repeat it. */
export function setText(element, content) {
  if (element.textContent !== content) element.textContent = content;
}

/** Let a screen reader announce a message after what it is reading now. */
export function announce(message) {
  setText(document.getElementById("live"), message);
}

/** Create a time that reads "3 minutes ago" and shows the exact instant on hover; main.js keeps it current. */
export const timeAgo = (at) => (at ? h("time", { datetime: at, title: instant(at) }, ago(at)) : ago(at));

/** Create a spinner with a label. */
export const busy = (label = "Loading …") =>
  h("p", { class: "busy", role: "status" }, h("span", { class: "spinner" }), label);

/** Create an empty state: a title, and below it what the reader can do. */
export const empty = (title, ...more) => h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), ...more);

/** Create an error message from an error of the API. With `retry` it has a button that calls it. */
export function failure(error, retry) {
  const message = error.message || String(error);
  return h(
    "div",
    { class: "failure", role: "alert" },
    h("p", {}, message.charAt(0).toUpperCase() + message.slice(1) + (/[.!?]$/.test(message) ? "" : ".")),
    (error.errors ?? []).map((e) => h("p", { class: "muted" }, h("code", {}, e.pointer), ` ${e.detail}`)),
    retry && h("button", { type: "button", onclick: retry }, "Try again"),
  );
}

let number = 0;

/** Create an id that no other element has. */
export const uniqueId = (stem) => `${stem}-${++number}`;

/**
 * Open a dialog. `body` is a node; `actions` are [label, value, class] from left to right. Resolves with the value of the
 * button that was pressed, or with null if the dialog was closed. Fields in `body` are validated unless the value is null.
 */
export function openDialog(title, body, actions) {
  const heading = h("h2", { id: uniqueId("dialog") }, title);
  const form = h("form", { method: "dialog" }, heading, body);
  const dialog = h("dialog", { "aria-labelledby": heading.id }, form);
  // The button that closes does not submit, so Enter in a field presses the first other button.
  const buttons = actions.map(([label, value, kind]) =>
    value === null
      ? h("button", { type: "button", class: kind, onclick: () => dialog.close("") }, label)
      : h("button", { type: "submit", value, class: kind }, label),
  );
  form.append(h("div", { class: "actions" }, buttons));
  document.body.append(dialog);
  const close = () => dialog.close("");
  addEventListener("hashchange", close); // the dialog belongs to the view that is left
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      removeEventListener("hashchange", close);
      dialog.remove();
      resolve(dialog.returnValue || null);
    });
  });
}

/** Wrap `callback` so that it runs at most once per frame; further calls before the next frame do nothing. */
export function oncePerFrame(callback) {
  let requested = false;
  return () => {
    if (requested) return;
    requested = true;
    requestAnimationFrame(() => ((requested = false), callback()));
  };
}

/** Resolves before the next frame is drawn. A hidden page draws none, so there it resolves after 50 ms. */
export const nextFrame = () =>
  new Promise((resolve) => (document.hidden ? setTimeout(resolve, 50) : requestAnimationFrame(resolve)));

/** Return a colour or another token of the style sheet, for drawing on a canvas. */
export const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Elements: made, filled, and the states that every view has (loading, nothing there, an error).

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. `onclick` and its like are listeners; true sets a bare attribute; false, null and undefined none. */
export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);

/** An SVG element. */
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

/** Put these children in place of all others. */
export function fill(element, ...children) {
  element.replaceChildren(
    ...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** The same, with the focus on the control that reads as the one which had it, or on the first. */
export function refill(element, ...children) {
  const held = element.contains(document.activeElement) ? document.activeElement.textContent : null;
  fill(element, ...children);
  if (held === null) return;
  const controls = [...element.querySelectorAll("a, button")];
  (controls.find((control) => control.textContent === held) ?? controls[0])?.focus();
}

/** Set the text only where it differs, so that a screen reader is not told the same again. */
export function text(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

/** Say something to a screen reader, politely. */
export function announce(words) {
  text(document.getElementById("live"), words);
}

export const busy = (words = "Loading …") =>
  h("p", { class: "busy", role: "status" }, h("span", { class: "spinner" }), words);

/** That there is nothing yet, and what to do about it. */
export const empty = (title, ...more) => h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), ...more);

/** What went wrong, in the API's words, and a button that tries again. */
export function failure(error, again) {
  const words = error.message || String(error);
  return h(
    "div",
    { class: "failure", role: "alert" },
    h("p", {}, words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".")),
    (error.errors ?? []).map((e) => h("p", { class: "muted" }, h("code", {}, e.pointer), ` ${e.detail}`)),
    again && h("button", { type: "button", onclick: again }, "Try again"),
  );
}

let number = 0;

/** An id that no other element has. */
export const unique = (stem) => `${stem}-${++number}`;

/**
 * A dialog: `body` is a node, `actions` are [label, value, class] from left to right. Resolves with the value of the
 * button that was pressed, null where it was closed. A form inside `body` is checked before a value other than null.
 */
export function ask(title, body, actions) {
  const heading = h("h2", { id: unique("dialog") }, title);
  const form = h("form", { method: "dialog" }, heading, body);
  const dialog = h("dialog", { "aria-labelledby": heading.id }, form);
  // Only what does something submits: Enter in a field is the first button that does.
  const buttons = actions.map(([label, value, kind]) =>
    value === null
      ? h("button", { type: "button", class: kind, onclick: () => dialog.close("") }, label)
      : h("button", { type: "submit", value, class: kind }, label),
  );
  form.append(h("div", { class: "actions" }, buttons));
  document.body.append(dialog);
  const close = () => dialog.close("");
  addEventListener("hashchange", close); // it is about the view that is left
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      removeEventListener("hashchange", close);
      dialog.remove();
      resolve(dialog.returnValue || null);
    });
  });
}

/** Run `work` at most once a frame: calls in between are one. */
export function eachFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => ((asked = false), work()));
  };
}

/** Resolves when the next frame is about to be drawn, or soon where the page is not seen. */
export const nextFrame = () =>
  new Promise((resolve) => (document.hidden ? setTimeout(resolve, 50) : requestAnimationFrame(resolve)));

/** A colour or other token of the style sheet, for what is drawn on a canvas. */
export const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

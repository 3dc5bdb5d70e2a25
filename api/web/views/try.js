// Try it: draw, open a picture or take a random test image, and see the answer of every network while drawing.

import { get, request } from "../api.js";
import { throttled } from "../drawing/throttle.js";
import { announce, empty, failure, fill, h, setText } from "../dom.js";
import { Pad } from "../drawing/pad.js";
import { black, digit, paint, pictureOf, png } from "../drawing/pixels.js";
import { AnswerPanel } from "./answer.js";

const HINT = "Draw one large digit in the box.";
const RETRY = 1000; // milliseconds until a request that failed is sent again

export async function show(root, params, signal) {
  const catalog = await get("/catalog", { signal });
  const { items } = await get("/models", { signal });
  const champions = items.flatMap((model) => model.champions);
  const dataset = params.dataset && catalog.datasets[params.dataset] ? params.dataset : "mnist";
  const bench = new Bench(catalog, champions, dataset, signal);
  fill(root,
    h("div", { class: "head" }, h("h1", {}, "Try it"), bench.datasets()),
    !bench.published.length && noModel(dataset),
    h("div", { class: "bench" }, bench.drawingCard(), h("div", { class: "verdicts" }, bench.panels.map((panel) => panel.element))));
  bench.listen();
}

const noModel = (dataset) =>
  empty(`No model for ${dataset} yet`, h("p", {}, "Train or tune a network. Its best trial answers here when the job ends."), h("a", { class: "button primary", href: "#/jobs/new" }, "New job"));

/** The image that is classified, and the panels with the answers. */
class Bench {
  constructor(catalog, champions, dataset, signal) {
    const champion = (model) => champions.find((each) => each.model === model && each.dataset === dataset);
    this.catalog = catalog;
    this.dataset = dataset;
    this.shape = catalog.datasets[dataset].shape;
    this.signal = signal;
    this.input = null; // {pixels} or {blob, a function}; with `truth` if the label is known, `message` if it has a name
    this.turn = null; // identifies the picture that is loading
    this.panels = Object.keys(catalog.networks).map((model) => new AnswerPanel(model, catalog.datasets[dataset].classes, champion(model)));
    this.published = this.panels.filter((panel) => panel.champion);
    this.changed = throttled((explain, request) => this.#predict(explain, request), signal);
    this.pad = new Pad(() => this.#setInput(this.drawing));
    this.drawing = this.#newDrawing();
    this.preview = digit(black(this.shape), "Network input: empty", this.shape);
    this.report = h("p", { class: "small muted" }, "Drawings and pictures are centred and scaled like the images of the data set.");
    this.message = h("p", { class: "hint", role: "status" }, HINT);
    this.alert = h("div");
  }

  /** Create the choice of a data set. */
  datasets() {
    const options = Object.keys(this.catalog.datasets).map((name) => h("option", { value: name, selected: name === this.dataset }, name));
    const select = h("select", { id: "try-dataset", onchange: () => (location.hash = `#/try?dataset=${encodeURIComponent(select.value)}`) }, options);
    return h("div", { class: "row trained" }, h("label", { for: select.id }, "Trained on"), select);
  }

  /** Create the drawing box with its buttons, and the network input below it. */
  drawingCard() {
    const file = h("input", { type: "file", id: "try-file", class: "unseen", accept: "image/*", onchange: () => this.#openPicture(file.files[0]).then(() => (file.value = "")) });
    const button = (label, onclick) => h("button", { type: "button", onclick }, label);
    return h("section", { class: "card sheet", "aria-label": "Image" },
      this.pad.element,
      h("div", { class: "row" }, button("Clear", () => this.#clear()), button("Random test image", () => this.#random()), file, h("label", { class: "button", for: file.id }, "Open picture …")),
      this.message,
      this.alert,
      h("div", { class: "fed" }, this.preview, h("div", {}, h("h2", {}, "Network input"), this.report)));
  }

  /** Listen for pictures that are pasted or dropped anywhere on the page. */
  listen() {
    const { signal } = this;
    const over = (event) => (event.preventDefault(), this.pad.element.classList.toggle("dropping", event.type === "dragover"));
    addEventListener("paste", (event) => event.clipboardData.files[0] && this.#openPicture(event.clipboardData.files[0]), { signal });
    addEventListener("dragover", over, { signal });
    addEventListener("dragleave", over, { signal });
    addEventListener("drop", (event) => (over(event), event.dataTransfer.files[0] && this.#openPicture(event.dataTransfer.files[0])), { signal });
  }

  /** Start loading an image. Returns a function that is true until another image is drawn or loaded. */
  #startLoading() {
    const turn = {};
    this.turn = turn;
    return () => this.turn === turn;
  }

  #setInput(input) {
    this.turn = null;
    if (input !== this.input) for (const panel of this.published) panel.hideSaliency();
    this.input = input;
    setText(this.message, input.message ?? "Keep drawing, or clear the box to start again.");
    fill(this.alert);
    this.changed();
  }

  #newDrawing() {
    return { blob: () => png(this.pad.element) };
  }

  #clear() {
    this.turn = null;
    this.input = null;
    this.drawing = this.#newDrawing();
    this.pad.clear();
    this.changed(); // cancels the request for the previous image
    for (const panel of this.published) panel.clear();
    paint(this.preview, black(this.shape), this.shape);
    this.preview.setAttribute("aria-label", "Network input: empty");
    setText(this.message, HINT);
    fill(this.alert);
  }

  /** Load a picture from a file, the clipboard or a drag. */
  async #openPicture(file) {
    if (!file) return;
    const isCurrent = this.#startLoading();
    try {
      const picture = await pictureOf(file);
      const blob = await png(picture);
      if (!isCurrent()) return;
      const name = file.name || "pasted picture";
      this.pad.show(picture, `Picture ${name}`);
      this.#setInput({ blob: async () => blob, message: `Picture: ${name}` });
    } catch (error) {
      if (isCurrent()) fill(this.alert, failure(error));
    }
  }

  async #random() {
    const isCurrent = this.#startLoading();
    try {
      const { index, label, pixels } = await get(`/datasets/${this.dataset}/images/random?part=test`, { signal: this.signal });
      if (!isCurrent()) return;
      this.pad.show(digit(pixels, "", this.shape), `Test image with label ${label}`);
      this.#setInput({ pixels, truth: label, message: `Test image ${index.toLocaleString("en")}, label ${label}` });
    } catch (error) {
      if (!this.signal.aborted) fill(this.alert, failure(error, () => this.#random()));
    }
  }

  /** Send the image to every network at once, and show each answer as it arrives. */
  async #predict(explain, signal) {
    const { input } = this;
    if (!input) return;
    const body = await (input.pixels ? JSON.stringify({ pixels: input.pixels, scale: 255 }) : input.blob());
    const answers = await Promise.all(this.published.map((panel) => this.#predictOne(panel, input, body, explain, signal)));
    if (explain && !signal.aborted) announce(summary(this.published, answers));
  }

  async #predictOne(panel, input, body, explain, signal) {
    const query = new URLSearchParams({ model: panel.model, dataset: this.dataset, ...(explain && { explain: true }) });
    const headers = { "content-type": input.pixels ? "application/json" : "image/png" };
    try {
      const response = await request(`/predict?${query}`, { method: "POST", headers, body, signal });
      const answer = await response.json();
      if (signal.aborted || this.input !== input) return null; // the image has changed meanwhile
      const pixels = answer.input_report?.pixels ?? input.pixels;
      this.#showInput(pixels, answer.input_report);
      panel.show(answer, pixels, input.truth);
      return answer;
    } catch (error) {
      if (signal.aborted || this.input !== input) return null;
      panel.fail(error);
      if (error.status === 0 || error.status >= 500) this.#retryLater();
      return null;
    }
  }

  /** Send the request again soon: the API is unreachable or busy. */
  #retryLater() {
    clearTimeout(this.retry);
    this.retry = setTimeout(this.changed, RETRY);
  }

  #showInput(pixels, report) {
    const [, height, width] = this.shape;
    paint(this.preview, pixels ?? black(this.shape), this.shape);
    this.preview.setAttribute("aria-label", pixels ? `Network input, ${width} by ${height} pixels` : "Network input: no preview");
    setText(this.report, pixels ? describeChanges(report) : "The picture is resized to the size of the data set's images. There is no preview.");
  }
}

/** Describe how the API changed a picture to look like an image of the data set. */
function describeChanges(report) {
  if (!report) return "Unchanged: this image is from the data set.";
  if (!report.found) return "Nothing stands out from the background.";
  const changes = report.changed.join(", ");
  return changes ? `${changes[0].toUpperCase()}${changes.slice(1)}.` : "No changes needed.";
}

function summary(panels, answers) {
  const labels = panels.flatMap(({ model }, i) => (answers[i] ? [`${model}: ${answers[i].abstained ? "abstains" : answers[i].label}`] : []));
  return labels.join("; ");
}

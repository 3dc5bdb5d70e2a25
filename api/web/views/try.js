// Try it: draw, bring a picture or take a random test image; what every network says of it, as one draws.

import { get, request } from "../api.js";
import { asker } from "../drawing/asking.js";
import { announce, empty, failure, fill, h, text } from "../dom.js";
import { Pad } from "../drawing/pad.js";
import { black, digit, paint, pictureOf, png } from "../drawing/pixels.js";
import { Verdict } from "./answer.js";

const HINT = "Draw on the sheet, large and in one go.";
const AGAIN = 1000; // milliseconds until what could not be answered is asked again

export async function show(root, params, signal) {
  const catalog = await get("/catalog", { signal });
  const { items } = await get("/models", { signal });
  const champions = items.flatMap((model) => model.champions);
  const dataset = params.dataset && catalog.datasets[params.dataset] ? params.dataset : "mnist";
  const bench = new Bench(catalog, champions, dataset, signal);
  fill(root,
    h("div", { class: "head" }, h("h1", {}, "Try it"), bench.datasets()),
    !bench.published.length && nothing(dataset),
    h("div", { class: "bench" }, bench.sheet(), h("div", { class: "verdicts" }, bench.verdicts.map((verdict) => verdict.element))));
  bench.listen();
}

const nothing = (dataset) =>
  empty(`No network has been trained on ${dataset} yet`, h("p", {}, "Train or tune one; its best trial answers here as soon as the job has ended."), h("a", { class: "button primary", href: "#/jobs/new" }, "New job"));

/** What is asked about, and the answers. */
class Bench {
  constructor(catalog, champions, dataset, signal) {
    const champion = (model) => champions.find((each) => each.model === model && each.dataset === dataset);
    this.catalog = catalog;
    this.dataset = dataset;
    this.shape = catalog.datasets[dataset].shape;
    this.signal = signal;
    this.input = null; // a function that resolves with {pixels} or {blob}; `truth` where it is known
    this.turn = null; // of the picture that is being brought
    this.verdicts = Object.keys(catalog.networks).map((model) => new Verdict(model, catalog.datasets[dataset].classes, champion(model)));
    this.published = this.verdicts.filter((verdict) => verdict.champion);
    this.changed = asker((explain, round) => this.#ask(explain, round), signal);
    this.pad = new Pad(() => this.#take(this.drawing));
    this.drawing = this.#sheet();
    this.fed = digit(black(this.shape), "What the networks were given: nothing yet", this.shape);
    this.done = h("p", { class: "small muted" }, "Whatever you draw or bring is centred and scaled as in the data set before a network sees it.");
    this.said = h("p", { class: "hint", role: "status" }, HINT);
    this.trouble = h("div");
  }

  /** The choice of a data set. */
  datasets() {
    const options = Object.keys(this.catalog.datasets).map((name) => h("option", { value: name, selected: name === this.dataset }, name));
    const select = h("select", { id: "try-dataset", onchange: () => (location.hash = `#/try?dataset=${encodeURIComponent(select.value)}`) }, options);
    return h("div", { class: "row trained" }, h("label", { for: select.id }, "Trained on"), select);
  }

  /** The sheet with all that can be put on it, and what the networks were given. */
  sheet() {
    const file = h("input", { type: "file", id: "try-file", class: "unseen", accept: "image/*", onchange: () => this.#bring(file.files[0]).then(() => (file.value = "")) });
    const button = (label, onclick) => h("button", { type: "button", onclick }, label);
    return h("section", { class: "card sheet", "aria-label": "Image" },
      this.pad.element,
      h("div", { class: "row" }, button("Clear", () => this.#clear()), button("Random test image", () => this.#random()), file, h("label", { class: "button", for: file.id }, "Open a picture …")),
      this.said,
      this.trouble,
      h("div", { class: "fed" }, this.fed, h("div", {}, h("h2", {}, "What the networks were given"), this.done)));
  }

  /** Hear of pictures that are pasted anywhere, or dropped anywhere. */
  listen() {
    const { signal } = this;
    const over = (event) => (event.preventDefault(), this.pad.element.classList.toggle("dropping", event.type === "dragover"));
    addEventListener("paste", (event) => event.clipboardData.files[0] && this.#bring(event.clipboardData.files[0]), { signal });
    addEventListener("dragover", over, { signal });
    addEventListener("dragleave", over, { signal });
    addEventListener("drop", (event) => (over(event), event.dataTransfer.files[0] && this.#bring(event.dataTransfer.files[0])), { signal });
  }

  /** A turn for what takes time: whether it is still its own, and nothing was drawn or brought meanwhile. */
  #turn() {
    const own = {};
    this.turn = own;
    return () => this.turn === own;
  }

  #take(input) {
    this.turn = null;
    if (input !== this.input) for (const verdict of this.published) verdict.forget();
    this.input = input;
    text(this.said, input.words ?? "Draw on, or clear the sheet for another.");
    fill(this.trouble);
    this.changed();
  }

  #sheet() {
    return { blob: () => png(this.pad.element) };
  }

  #clear() {
    this.turn = null;
    this.input = null;
    this.drawing = this.#sheet();
    this.pad.clear();
    this.changed(); // what was asked before is given up
    for (const verdict of this.published) verdict.clear();
    paint(this.fed, black(this.shape), this.shape);
    this.fed.setAttribute("aria-label", "What the networks were given: nothing yet");
    text(this.said, HINT);
    fill(this.trouble);
  }

  /** A picture from a file, the clipboard or a drag. */
  async #bring(file) {
    if (!file) return;
    const still = this.#turn();
    try {
      const picture = await pictureOf(file);
      const blob = await png(picture);
      if (!still()) return;
      const name = file.name || "the pasted picture";
      this.pad.show(picture, `The picture ${name}`);
      this.#take({ blob: async () => blob, words: `This is ${name}.` });
    } catch (error) {
      if (still()) fill(this.trouble, failure(error));
    }
  }

  async #random() {
    const still = this.#turn();
    try {
      const { index, label, pixels } = await get(`/datasets/${this.dataset}/images/random?part=test`, { signal: this.signal });
      if (!still()) return;
      this.pad.show(digit(pixels, "", this.shape), `A test image that shows ${label}`);
      this.#take({ pixels, truth: label, words: `Image ${index.toLocaleString("en")}, a test image: it shows ${label}.` });
    } catch (error) {
      if (!this.signal.aborted) fill(this.trouble, failure(error, () => this.#random()));
    }
  }

  /** Ask every network at once, and show each answer as it comes. */
  async #ask(explain, signal) {
    const { input } = this;
    if (!input) return;
    const body = await (input.pixels ? JSON.stringify({ pixels: input.pixels, scale: 255 }) : input.blob());
    const answers = await Promise.all(this.published.map((verdict) => this.#one(verdict, input, body, explain, signal)));
    if (explain && !signal.aborted) announce(summary(this.published, answers));
  }

  async #one(verdict, input, body, explain, signal) {
    const query = new URLSearchParams({ model: verdict.model, dataset: this.dataset, ...(explain && { explain: true }) });
    const headers = { "content-type": input.pixels ? "application/json" : "image/png" };
    try {
      const response = await request(`/predict?${query}`, { method: "POST", headers, body, signal });
      const answer = await response.json();
      if (signal.aborted || this.input !== input) return null; // another image is looked at by now
      const pixels = answer.input_report?.pixels ?? input.pixels;
      this.#given(pixels, answer.input_report);
      verdict.show(answer, pixels, input.truth);
      return answer;
    } catch (error) {
      if (signal.aborted || this.input !== input) return null;
      verdict.fail(error);
      if (error.status === 0 || error.status >= 500) this.#later();
      return null;
    }
  }

  /** Ask again soon: the API is away, or busy. */
  #later() {
    clearTimeout(this.later);
    this.later = setTimeout(this.changed, AGAIN);
  }

  #given(pixels, report) {
    const [, height, width] = this.shape;
    paint(this.fed, pixels ?? black(this.shape), this.shape);
    this.fed.setAttribute("aria-label", pixels ? `What the networks were given, ${width} by ${height} pixels` : "It cannot be shown here");
    text(this.done, pixels ? done(report) : "The picture as it is, brought to the size of the data set's images; it cannot be shown here.");
  }
}

/** What was done to a picture, in words. */
function done(report) {
  if (!report) return "The image as it is: it comes from the data set.";
  if (!report.found) return "Nothing stands out from the ground.";
  const words = report.changed.join(", ");
  return words ? `${words[0].toUpperCase()}${words.slice(1)}.` : "Nothing had to be changed.";
}

function summary(verdicts, answers) {
  const said = verdicts.flatMap(({ model }, i) => (answers[i] ? [`${model}: ${answers[i].abstained ? "abstains" : answers[i].label}`] : []));
  return said.join("; ");
}

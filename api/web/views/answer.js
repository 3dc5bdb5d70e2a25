// A network's answer to an image: the label or the reason for abstaining, the probabilities, and the saliency map.

import { h, fill, setText } from "../dom.js";
import { percent } from "../format.js";
import { paintSaliency } from "../drawing/pixels.js";
import { to } from "../address.js";

/** The panel of one network; `champion` is undefined if no version is published. */
export class AnswerPanel {
  constructor(model, classes, champion) {
    this.model = model;
    this.champion = champion;
    this.version = h("a", { class: "small" });
    this.label = h("p", { class: "verdict-label" }, "–");
    this.note = h("p", { class: "verdict-note muted" });
    this.bars = classes.map((name) => new Bar(name));
    this.map = h("canvas", { class: "digit saliency", role: "img", hidden: true });
    this.element = h("section", { class: "card verdict", "aria-label": model }, this.#head(), champion ? this.#body() : this.#missing());
  }

  #head() {
    if (this.champion) this.#showVersion(this.champion.version);
    return h("div", { class: "row spread" }, h("h2", {}, this.model), this.champion && this.version);
  }

  /** Show the version that answered, since another one may have become the champion. */
  #showVersion(version) {
    this.version.href = to("models", this.model, version);
    setText(this.version, `version ${version}`);
  }

  #body() {
    const answer = h("div", { class: "said" }, this.label, this.map);
    return [answer, this.note, h("ol", { class: "chances", "aria-label": `${this.model}: probabilities` }, this.bars.map((bar) => bar.element))];
  }

  #missing() {
    return h("div", { class: "empty" },
      h("p", { class: "empty-title" }, "No model yet"),
      h("a", { href: "#/jobs/new" }, "Train or tune"));
  }

  /** Show an answer of /predict; `truth` is the true label, or undefined if it is unknown. */
  show(answer, pixels, truth) {
    this.#showVersion(answer.version);
    setText(this.label, answer.label);
    this.element.classList.toggle("abstains", answer.abstained);
    const mark = truth === undefined ? null : badge(answer.label === truth);
    const confidence = h("span", {}, percent(answer.confidence, 1));
    fill(this.note, answer.abstained ? [h("span", { class: "badge warn" }, "abstains"), ` ${answer.reason}`] : [confidence, mark && " ", mark]);
    this.bars.forEach((bar, i) => bar.show(answer.probabilities[i], answer.probabilities[i] === answer.confidence));
    if (answer.saliency && pixels) this.#explain(answer, pixels);
  }

  #explain(answer, pixels) {
    paintSaliency(this.map, pixels, answer.saliency);
    this.map.setAttribute("aria-label", `Pixels that ${this.model} bases its answer ${answer.label} on`);
    this.map.hidden = false;
  }

  /** Hide the saliency map: it belongs to the previous image. */
  hideSaliency() {
    this.map.hidden = true;
  }

  /** Show the error instead of an answer. */
  fail(error) {
    this.clear();
    fill(this.note, h("span", { class: "error" }, error.message));
  }

  clear() {
    setText(this.label, "–");
    fill(this.note, "");
    this.element.classList.remove("abstains");
    this.bars.forEach((bar) => bar.show(0, false));
    this.map.hidden = true;
  }
}

const badge = (correct) => h("span", { class: `badge ${correct ? "good" : "bad"}` }, correct ? "correct" : "wrong");

/** The probability of one class, as a bar and a number. */
class Bar {
  constructor(name) {
    this.fill = h("span", { class: "chance" });
    this.figure = h("span", { class: "number" }, "");
    this.element = h("li", {}, h("span", { class: "class" }, name), h("span", { class: "track" }, this.fill), this.figure);
    this.show(0, false);
  }

  show(share, best) {
    this.fill.style.setProperty("width", `${share * 100}%`);
    this.element.classList.toggle("best", best);
    setText(this.figure, share >= 0.0005 ? percent(share, 1) : "");
  }
}

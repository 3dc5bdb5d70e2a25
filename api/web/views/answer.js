// What one network says of an image: its answer, whether it abstains and why, a bar a class, and what it rests on.

import { h, fill, text } from "../dom.js";
import { percent } from "../format.js";
import { paintSaliency } from "../drawing/pixels.js";
import { to } from "../address.js";

/** The panel of a network; `champion` is undefined where none is published. */
export class Verdict {
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
    if (this.champion) this.#answers(this.champion.version);
    return h("div", { class: "row spread" }, h("h2", {}, this.model), this.champion && this.version);
  }

  /** Which version it is that answers: another one may have become the champion. */
  #answers(version) {
    this.version.href = to("models", this.model, version);
    text(this.version, `version ${version}`);
  }

  #body() {
    const said = h("div", { class: "said" }, this.label, this.map);
    return [said, this.note, h("ol", { class: "chances", "aria-label": `${this.model}: probabilities` }, this.bars.map((bar) => bar.element))];
  }

  #missing() {
    return h("div", { class: "empty" },
      h("p", { class: "empty-title" }, "Nothing published yet"),
      h("a", { href: "#/jobs/new" }, `Train or tune it`));
  }

  /** Show an answer of /predict; `truth` is the label where it is known. */
  show(answer, pixels, truth) {
    this.#answers(answer.version);
    text(this.label, answer.label);
    this.element.classList.toggle("abstains", answer.abstained);
    const right = truth === undefined ? null : badge(answer.label === truth);
    const sure = h("span", {}, percent(answer.confidence, 1));
    fill(this.note, answer.abstained ? [h("span", { class: "badge warn" }, "abstains"), ` ${answer.reason}`] : [sure, right && " ", right]);
    this.bars.forEach((bar, i) => bar.show(answer.probabilities[i], answer.probabilities[i] === answer.confidence));
    if (answer.saliency && pixels) this.#explain(answer, pixels);
  }

  #explain(answer, pixels) {
    paintSaliency(this.map, pixels, answer.saliency);
    this.map.setAttribute("aria-label", `Where ${this.model} sees that it is ${answer.label}`);
    this.map.hidden = false;
  }

  /** Another image is asked about: what the answer rests on is not known of it yet. */
  forget() {
    this.map.hidden = true;
  }

  /** Show that it could not answer. */
  fail(error) {
    this.clear();
    fill(this.note, h("span", { class: "error" }, error.message));
  }

  clear() {
    text(this.label, "–");
    fill(this.note, "");
    this.element.classList.remove("abstains");
    this.bars.forEach((bar) => bar.show(0, false));
    this.map.hidden = true;
  }
}

const badge = (right) => h("span", { class: `badge ${right ? "good" : "bad"}` }, right ? "right" : "wrong");

/** A class's probability. */
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
    text(this.figure, share >= 0.0005 ? percent(share, 1) : "");
  }
}

// A box to draw in with a mouse, a pen or a finger. It shows pictures too.

import { h } from "../dom.js";

const SIDE = 280;
const EMPTY = "Drawing box"; // label of the empty box
const PEN = 22; // pixels of SIDE: as wide as MNIST's strokes are in 28 pixels

/** A canvas to draw on. `changed` is called after each line that is drawn. A new drawing replaces a picture. */
export class Pad {
  constructor(changed) {
    this.element = h("canvas", { class: "pad", width: SIDE, height: SIDE, role: "img" });
    this.context = this.element.getContext("2d");
    this.changed = changed;
    this.stroke = null; // pointer id, the box's position, the last point, and the point up to which the line is drawn
    this.clear();
    this.element.addEventListener("pointerdown", (event) => this.#begin(event));
    this.element.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) this.element.addEventListener(end, (event) => this.#end(event));
  }

  /** Clear the box. */
  clear() {
    this.context.fillStyle = "white";
    this.context.fillRect(0, 0, SIDE, SIDE);
    this.holds = "nothing";
    this.element.setAttribute("aria-label", EMPTY);
  }

  /** Show a picture as large as it fits; small images keep their square pixels. */
  show(canvas, label) {
    this.clear();
    const grow = Math.min(SIDE / canvas.width, SIDE / canvas.height);
    const [width, height] = [canvas.width * grow, canvas.height * grow];
    this.context.imageSmoothingEnabled = grow < 2;
    this.context.drawImage(canvas, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
    this.holds = "picture";
    this.element.setAttribute("aria-label", label);
  }

  #begin(event) {
    if (event.button !== 0 || this.stroke) return;
    event.preventDefault();
    if (this.holds === "picture") this.clear();
    this.holds = "drawing";
    this.element.setAttribute("aria-label", "Your drawing");
    this.element.setPointerCapture(event.pointerId);
    const box = this.element.getBoundingClientRect(); // kept for the whole stroke, as the layout may shift while the reader draws
    const at = pointOf(event, box);
    this.stroke = { pointer: event.pointerId, box, at, middle: at };
    this.#line((pen) => pen.lineTo(at.x + 0.01, at.y)); // a dot
    this.changed();
  }

  #move(event) {
    if (this.stroke?.pointer !== event.pointerId) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.#draw(pointOf(each, this.stroke.box));
    this.changed();
  }

  #end(event) {
    if (this.stroke?.pointer !== event.pointerId) return;
    const { at } = this.stroke;
    this.#line((pen) => pen.lineTo(at.x, at.y));
    this.stroke = null;
    this.changed();
  }

  /** Continue the line to a point. Curves through the midpoints keep quick lines free of corners. */
  #draw(to) {
    const { at } = this.stroke;
    const middle = { x: (at.x + to.x) / 2, y: (at.y + to.y) / 2 };
    this.#line((pen) => pen.quadraticCurveTo(at.x, at.y, middle.x, middle.y));
    Object.assign(this.stroke, { at: to, middle });
  }

  #line(along) {
    const pen = this.context;
    Object.assign(pen, { lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: "black" });
    pen.beginPath();
    pen.moveTo(this.stroke.middle.x, this.stroke.middle.y);
    along(pen);
    pen.stroke();
  }
}

const pointOf = (event, box) => ({ x: ((event.clientX - box.left) / box.width) * SIDE, y: ((event.clientY - box.top) / box.height) * SIDE });

import { h, fill } from "./dom.js";

export async function show(root) {
  fill(root, h("h1", {}, "jobs"));
}

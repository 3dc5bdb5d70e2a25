// Markdown as elements: what model cards are made of, and nothing else. Texts become text nodes, whatever they hold.

import { h } from "./dom.js";

/** The elements for headings, paragraphs, tables and blocks of code. Headings begin at the level `top`. */
export function rendered(markdown, top = 2) {
  return blocks(markdown).map((block) => {
    if (block.code) return h("pre", { tabindex: 0 }, h("code", {}, block.code.join("\n")));
    const heading = block[0].match(/^(#{1,6}) (.*)$/);
    if (heading) return h(`h${Math.min(6, heading[1].length + top - 1)}`, {}, inline(heading[2]));
    if (block[0].startsWith("|")) return table(block);
    return h("p", {}, inline(block.join(" ")));
  });
}

/** Lines that belong together; a fenced block is {code}. */
function blocks(markdown) {
  const found = [];
  let [open, fence] = [null, null];
  for (const line of markdown.split("\n")) {
    if (fence) line.startsWith("```") ? (fence = null) : fence.code.push(line);
    else if (line.startsWith("```")) found.push((fence = { code: [] })), (open = null);
    else if (!line.trim()) open = null;
    else open ? open.push(line) : found.push((open = [line]));
  }
  return found;
}

function table(lines) {
  const [heads, , ...rows] = lines.map(cells);
  return h("div", { class: "scroll", tabindex: 0 },
    h("table", {},
      h("thead", {}, h("tr", {}, heads.map((cell) => h("th", { scope: "col" }, inline(cell))))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, inline(cell))))))));
}

/** The cells of a row; a bar after a backslash belongs to its cell. */
const cells = (line) => line.replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim());

/** Text, `code` and [links](https://…); a backslash takes the meaning of the mark after it away. */
function inline(line) {
  const parts = line.matchAll(/`([^`]*)`|\[([^\]]*)\]\((https?:[^)\s]*)\)|\\([\\`*_{}[\]<>#!|~&$@:])|([^`[\\]+|.)/g);
  return [...parts].map(([, code, label, address, mark, plain]) => {
    if (code !== undefined) return h("code", {}, code);
    if (label !== undefined) return h("a", { href: address, rel: "noreferrer" }, label);
    return mark ?? plain;
  });
}

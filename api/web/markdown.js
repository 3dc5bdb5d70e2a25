// Render the subset of Markdown that model cards use. Text becomes text nodes, so no markup in it is interpreted.

import { h } from "./dom.js";

/** Return elements for headings, paragraphs, tables and code blocks. The highest heading gets the level `top`. */
export function renderMarkdown(markdown, top = 2) {
  return blocks(markdown).map((block) => {
    if (block.code) return h("pre", { tabindex: 0 }, h("code", {}, block.code.join("\n")));
    const heading = block[0].match(/^(#{1,6}) (.*)$/);
    if (heading) return h(`h${Math.min(6, heading[1].length + top - 1)}`, {}, inline(heading[2]));
    if (block[0].startsWith("|")) return table(block);
    return h("p", {}, inline(block.join(" ")));
  });
}

/** Group lines into blocks: an array of lines, or {code} for a fenced block. */
function blocks(markdown) {
  const grouped = [];
  let [open, fence] = [null, null];
  for (const line of markdown.split("\n")) {
    if (fence) line.startsWith("```") ? (fence = null) : fence.code.push(line);
    else if (line.startsWith("```")) grouped.push((fence = { code: [] })), (open = null);
    else if (!line.trim()) open = null;
    else open ? open.push(line) : grouped.push((open = [line]));
  }
  return grouped;
}

function table(lines) {
  const [heads, , ...rows] = lines.map(cells);
  return h("div", { class: "scroll", tabindex: 0 },
    h("table", {},
      h("thead", {}, h("tr", {}, heads.map((cell) => h("th", { scope: "col" }, inline(cell))))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, inline(cell))))))));
}

/** Split a table row into cells; an escaped bar does not split. */
const cells = (line) => line.replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim());

/** Render text, `code` and [links](https://…); a backslash escapes the mark after it. */
function inline(line) {
  const parts = line.matchAll(/`([^`]*)`|\[([^\]]*)\]\((https?:[^)\s]*)\)|\\([\\`*_{}[\]<>#!|~&$@:])|([^`[\\]+|.)/g);
  return [...parts].map(([, code, label, address, mark, plain]) => {
    if (code !== undefined) return h("code", {}, code);
    if (label !== undefined) return h("a", { href: address, rel: "noreferrer" }, label);
    return mark ?? plain;
  });
}

// The graph of dependencies: around a task, or among the tasks of a query. Layers from left to right.

import { ask, h, number, shortId, stateOf, taskLink } from "./dom.js";

const WIDE = 176, TALL = 46, GAP_X = 70, GAP_Y = 14, MARGIN = 12;

function s(tag, props, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function graph(root, params, app) {
  const task = params.get("task") || "", query = params.get("query") || "";
  const box = h("input", { type: "text", id: "graph-of", value: task || query, spellcheck: "false", placeholder: 'a task\'s id, or a query: {"label": "train"}', class: "wide mono" });
  const place = h("section", { class: "card" }, h("p", { class: "soft" }, task || query ? "Reading …" : "Name a task, or a query whose tasks depend on each other."));
  const form = h("form", { class: "row", onsubmit: (event) => {
    event.preventDefault();
    const text = box.value.trim();
    location.hash = "#/graph" + (text ? "?" + new URLSearchParams(text.startsWith("{") ? { query: text } : { task: text }) : "");
  } }, h("label", { for: "graph-of" }, "Graph of"), box, h("button", { class: "main", type: "submit" }, "Show"));
  root.append(h("h1", {}, "Graph"), form, place);
  let left = false, timer = null;

  async function load() {
    if (!task && !query) return;
    try {
      const found = await ask("graph", task ? { task } : { query });
      if (left) return;
      const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("data-id") : null;
      const scroll = place.querySelector(".scroll")?.scrollLeft || 0;
      place.replaceChildren(...draw(found, task));
      if (focused) place.querySelector(`a[data-id="${CSS.escape(focused)}"]`)?.focus();
      if (scroll) place.querySelector(".scroll").scrollLeft = scroll;
      if (found.nodes.some((n) => n.state === "pending" || n.state === "running")) timer = setTimeout(load, 2000);
    } catch (error) {
      if (!left) place.replaceChildren(h("div", { class: "wrong", role: "alert" }, error.message));
    }
  }
  load();
  return () => { left = true; clearTimeout(timer); };
}

function draw({ nodes, edges, is_cut }, chosen) {
  if (!nodes.length) return [h("p", { class: "soft" }, "No task matches.")];
  const layers = new Map();
  for (const node of nodes) layers.set(node.layer, [...(layers.get(node.layer) || []), node]);
  const keys = [...layers.keys()].sort((a, b) => a - b), at = new Map(), parents = new Map();
  for (const [from, to] of edges) parents.set(to, [...(parents.get(to) || []), from]);
  keys.forEach((key, column) => {
    const middle = (node) => { const above = (parents.get(node.id) || []).map((p) => at.get(p)?.row ?? 0); return above.length ? above.reduce((a, b) => a + b) / above.length : 1e9; };
    const row = layers.get(key);
    if (column) row.sort((a, b) => middle(a) - middle(b));
    row.forEach((node, i) => at.set(node.id, { x: MARGIN + column * (WIDE + GAP_X), row: i, y: MARGIN + i * (TALL + GAP_Y) }));
  });
  const most = Math.max(...[...layers.values()].map((row) => row.length));
  for (const row of layers.values()) for (const node of row) at.get(node.id).y += ((most - row.length) * (TALL + GAP_Y)) / 2;
  const width = 2 * MARGIN + keys.length * (WIDE + GAP_X) - GAP_X, height = 2 * MARGIN + most * (TALL + GAP_Y) - GAP_Y;
  const svg = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: "graph", role: "group", "aria-label": `A graph of ${nodes.length} tasks` });
  for (const [from, to, word] of edges) {
    const a = at.get(from), b = at.get(to), x1 = a.x + WIDE, x2 = b.x, bend = Math.max(24, (x2 - x1) / 2);
    svg.append(s("path", { d: `M${x1},${a.y + TALL / 2} C${x1 + bend},${a.y + TALL / 2} ${x2 - bend},${b.y + TALL / 2} ${x2},${b.y + TALL / 2}`, class: `edge ${word}` },
      s("title", {}, word === "inputs" ? "its result is an argument" : word)));
  }
  for (const node of nodes) {
    const { x, y } = at.get(node.id), name = node.label ?? node.function ?? "";
    const clip = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
    svg.append(s("a", { href: `#/task/${encodeURIComponent(node.id)}`, "data-id": node.id, "aria-label": `${name} ${node.id}, ${node.state}`, class: `node ${node.state}${node.id === chosen ? " chosen" : ""}` },
      s("title", {}, `${node.id}\n${name}\n${node.state}`),
      s("rect", { x, y, width: WIDE, height: TALL, rx: 7 }), s("rect", { x, y: y + 8, width: 4, height: TALL - 16, rx: 2, class: "mark" }),
      s("text", { x: x + 14, y: y + 19, class: "name" }, clip(name || shortId(node.id), 22)),
      s("text", { x: x + 14, y: y + 36, class: "about" }, clip(`${shortId(node.id)} · ${node.state}`, 27))));
  }
  const counts = new Map();
  for (const node of nodes) counts.set(node.state, (counts.get(node.state) || 0) + 1);
  return [h("div", { class: "scroll" }, svg),
    h("ul", { class: "legend" }, [...counts].map(([state, count]) => h("li", {}, stateOf(state), ` ${number(count)}`))),
    h("p", { class: "soft small" }, `${number(nodes.length)} tasks, ${number(edges.length)} dependencies. An arrow in dashes: the result is an argument.` + (is_cut ? " The graph is larger: this is a part of it." : ""))];
}

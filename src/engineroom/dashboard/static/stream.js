// The task stream: a row for each engine, time to the right, coloured by label, function or state.

import { ask, colour, colourOf, duration, h, number, rate, time } from "./dom.js";
import { prepared } from "./chart.js";

const LEFT = 52, AXIS = 22, TOP = 6;
const LENGTHS = [[10, "10 s"], [60, "1 min"], [600, "10 min"], [3600, "1 h"], [86400, "1 day"]];

export function stream(root, params, app) {
  let by = params.get("by") || "label", view = null, data = null, busy = false, again = false, left = false, timer = null, drag = null;
  let live = app.news ? app.news.live && !params.get("from") : !params.get("from"), length = 60;
  if (params.get("from")) view = [Number(params.get("from")), Number(params.get("to"))];
  const canvas = h("canvas", { tabindex: 0, role: "img", "aria-label": "Task stream", "aria-describedby": "stream-help" });
  const hint = h("div", { class: "hint", hidden: true });
  const note = h("p", { class: "soft small", role: "status" });
  const legend = h("ul", { class: "legend" });
  const wrong = h("div", { class: "wrong", role: "alert", hidden: true });
  const choice = h("select", { "aria-label": "Colour by", onchange: () => { by = choice.value; load(); } },
    ["label", "function", "state"].map((name) => h("option", { value: name, selected: name === by }, name)));
  const follow = h("button", { type: "button", onclick: () => { live = !live; load(); } }, "Live");
  const lengths = LENGTHS.map(([seconds, title]) => h("button", { type: "button", onclick: () => { length = seconds; setLength(); } }, title));
  const whole = h("button", { type: "button", onclick: () => { live = false; view = null; load(); } }, "Everything");
  const step = (title, text, f) => h("button", { type: "button", title, "aria-label": title, onclick: f }, text);
  root.append(h("h1", {}, "Task stream"),
    h("div", { class: "row" }, h("label", {}, "Colour by ", choice), follow, lengths, whole, h("span", { class: "gap" }),
      step("Earlier", "‹", () => move(-0.5, 1)), step("Later", "›", () => move(0.5, 1)), step("Zoom in", "+", () => move(0, 0.5)), step("Zoom out", "−", () => move(0, 2))),
    wrong, h("section", { class: "card" }, canvas, legend, note,
      h("p", { id: "stream-help", class: "soft small" }, "Drag over a part to zoom into it; click on a task to open it. Keys: ← → move, + − zoom, 0 shows everything.")), hint);
  document.body.append(hint);

  function setLength() {
    if (!live) { const end = view ? view[1] : data?.to; if (end) view = [end - length, end]; }
    load();
  }

  function move(by, factor) {
    const [from, to] = [data?.from, data?.to];
    if (from === undefined) return;
    const middle = (from + to) / 2 + by * (to - from), half = Math.max(((to - from) * factor) / 2, 1e-4);
    live = false;
    view = [middle - half, middle + half];
    load();
  }

  async function load() {
    if (busy) { again = true; return; }
    busy = true;
    clearTimeout(timer);
    const began = performance.now(), slow = setTimeout(() => { note.textContent = "Counting …"; }, 700);
    follow.setAttribute("aria-pressed", String(live));
    lengths.forEach((b, i) => b.setAttribute("aria-pressed", String(live && LENGTHS[i][0] === length)));
    whole.setAttribute("aria-pressed", String(!live && !view));
    try {
      const now = Date.now() / 1000, asked = { by };
      if (live) Object.assign(asked, { from: now - length, to: now });
      else if (view) Object.assign(asked, { from: view[0], to: view[1] });
      const found = await ask("stream", asked);
      if (left) return;
      if (!found.live && live) { live = false; again = true; } // nothing goes on: everything is shown instead
      else { data = found; wrong.hidden = true; draw(); }
    } catch (error) {
      if (left) return;
      wrong.hidden = false;
      wrong.textContent = error.message;
    } finally { busy = false; clearTimeout(slow); }
    follow.disabled = !data?.live;
    if (again) { again = false; return load(); }
    if (live && !left) timer = setTimeout(load, Math.max(1000, 4 * (performance.now() - began)));
  }

  const rowHeight = () => { // a canvas cannot be of any height
    const rows = Math.max(1, data.engines.length);
    return Math.max(Math.min(2, 8000 / rows), Math.min(24, 560 / rows));
  };
  const x = (t) => LEFT + ((t - data.from) / (data.to - data.from)) * (canvas.clientWidth - LEFT - 8);
  const timeAt = (px) => data.from + ((px - LEFT) / (canvas.clientWidth - LEFT - 8)) * (data.to - data.from);
  const nameOf = (name) => (name === null ? "(none)" : name);
  const stateColour = { completed: "--completed", failed: "--failed", aborted: "--aborted", running: "--running", pending: "--pending" };
  const seen = []; // a name keeps the colour that it had first, though others become more frequent
  function colourFor(place) {
    if (place < 0) return colour("--aborted");
    const name = data.names[place];
    if (by === "state" && stateColour[name]) return colour(stateColour[name]);
    const key = `${by}:${name}`;
    if (!seen.includes(key)) seen.push(key);
    return colourOf(key, seen.filter((known) => known.startsWith(`${by}:`)));
  }

  function draw() {
    const tall = rowHeight(), rows = data.engines.length, row = new Map(data.engines.map((e, i) => [e, i]));
    const { context: c, width, height } = prepared(canvas, Math.max(80, rows * tall) + AXIS + TOP);
    c.fillStyle = colour("--empty");
    for (let i = 0; i < rows; i++) c.fillRect(LEFT, TOP + i * tall, width - LEFT - 8, Math.max(1, tall - (tall > 6 ? 3 : 0.5)));
    c.fillStyle = colour("--soft");
    c.textAlign = "right";
    const every = Math.ceil(13 / tall);
    data.engines.forEach((engine, i) => { if (i % every === 0) c.fillText(String(engine), LEFT - 8, TOP + i * tall + Math.min(tall, 20) / 2 + 4); });
    c.save(); c.beginPath(); c.rect(LEFT, 0, width - LEFT - 8, height); c.clip();
    const body = Math.max(1, tall - (tall > 6 ? 3 : 0.5));
    if (data.cells) {
      const heaped = new Map();
      for (const [span, engine, place, , seconds] of data.cells) {
        const key = `${span},${engine}`, used = heaped.get(key) || 0, share = Math.min(1 - used, seconds / data.width);
        const at = x(data.cells_from + span * data.width), wide = Math.max(0.7, x(data.cells_from + (span + 1) * data.width) - at - 0.3);
        c.fillStyle = colourFor(place);
        const part = Math.max(share * body, used ? 0 : 1);
        c.fillRect(at, TOP + row.get(engine) * tall + body - used * body - part, wide, part);
        heaped.set(key, used + Math.max(0, share));
      }
    }
    const bad = colour("--failed"), colours = new Map();
    for (const [engine, from, to, place, , state] of data.tasks) {
      if (!colours.has(place)) colours.set(place, colourFor(place));
      const at = x(from), end = x(to ?? data.to), wide = Math.max(0.7, end - at - (end - at > 4 ? 1 : 0));
      c.fillStyle = colours.get(place);
      c.globalAlpha = to === null ? 0.6 : 1;
      c.fillRect(at, TOP + row.get(engine) * tall, wide, body);
      if (state === "failed" && by !== "state" && tall > 6) { c.fillStyle = bad; c.fillRect(at, TOP + row.get(engine) * tall + body - 3, wide, 3); }
    }
    c.globalAlpha = 1;
    c.restore();
    axis(c, width, height);
    if (drag) { c.fillStyle = colour("--accent"); c.globalAlpha = 0.2; c.fillRect(Math.min(drag[0], drag[1]), 0, Math.abs(drag[1] - drag[0]), height - AXIS); c.globalAlpha = 1; }
    describe();
  }

  function axis(c, width, height) {
    const span = data.to - data.from, wanted = span / Math.max(2, Math.floor(width / 170));
    const stepOf = [1e-4, 1e-3, 0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400, 604800].find((s) => s >= wanted) || wanted;
    c.fillStyle = colour("--soft"); c.strokeStyle = colour("--line"); c.textAlign = "center";
    for (let t = Math.ceil(data.from / stepOf) * stepOf; t <= data.to; t += stepOf) {
      const at = Math.round(x(t)) + 0.5;
      if (at > width - 30 || at < LEFT + 24) continue;
      c.beginPath(); c.moveTo(at, height - AXIS); c.lineTo(at, height - AXIS + 4); c.stroke();
      const text = stepOf < 1 ? `${time(t)}${(t % 1).toFixed(stepOf < 0.01 ? 4 : 2).slice(1)}` : time(t);
      c.fillText(text, at, height - 5);
    }
  }

  function describe() {
    const counts = data.counts ? [...data.counts] : data.names.map((_, i) => data.tasks.filter((t) => t[3] === i).length);
    const items = data.names.slice(0, 12).map((name, i) => h("li", {}, h("i", { background: colourFor(i) }), `${nameOf(name)} (${number(counts[i])})`));
    if (data.others) items.push(h("li", {}, h("i", { background: colourFor(-1) }), `others (${number(data.others)})`));
    if (data.names.length > 12) items.push(h("li", { class: "soft" }, `and ${data.names.length - 12} more`));
    legend.replaceChildren(...items);
    const span = data.to - data.from;
    note.textContent = data.first === null ? "There are no tasks yet."
      : `${number(data.count)} tasks ended from ${time(data.from, true)} to ${time(data.to, true)} (${duration(span)}), ${rate(data.count / span)}, on ${number(data.engines.length)} engines.` +
        (data.cells ? ` Gathered in spans of ${duration(data.width)}: the height is the share of time in tasks; longer tasks are drawn one by one. Zoom in to see each task.` : "");
    canvas.setAttribute("aria-label", note.textContent);
  }

  function at(event) {
    const box = canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    return { px, py, engine: data?.engines[Math.floor((py - TOP) / rowHeight())], when: data ? timeAt(px) : 0 };
  }

  function taskAt({ engine, when, px }) {
    if (!data || engine === undefined) return null;
    const slack = (data.cells ? 0 : 2) * (timeAt(px + 1) - timeAt(px));
    return data.tasks.findLast((t) => t[0] === engine && t[1] - slack <= when && when <= (t[2] ?? data.to) + slack);
  }

  canvas.addEventListener("pointermove", (event) => {
    if (!data) return;
    const place = at(event);
    if (drag) { drag[1] = place.px; draw(); return; }
    let text = "";
    const task = taskAt(place);
    if (task) text = `${task[4]}\n${task[6] === null ? "" : `label ${task[6]}\n`}${task[7] ? `${task[7]}\n` : ""}${task[5]}, engine ${task[0]}\n${time(task[1], true)}${task[2] === null ? ", running" : `, ${duration(task[2] - task[1])}`}`;
    else if (data.cells && place.engine !== undefined) {
      const span = Math.floor((place.when - data.cells_from) / data.width);
      const here = data.cells.filter((cell) => cell[0] === span && cell[1] === place.engine);
      if (here.length) text = `engine ${place.engine}, ${time(data.cells_from + span * data.width, true)}\n` + here.map((cell) => `${cell[2] < 0 ? "others" : nameOf(data.names[cell[2]])}: ${number(cell[3])} tasks, ${duration(cell[4])}`).join("\n");
    }
    hint.hidden = !text;
    hint.textContent = text;
    canvas.style.cursor = task ? "pointer" : "crosshair";
    hint.style.left = `${Math.min(event.clientX + 14, innerWidth - 300)}px`;
    hint.style.top = `${event.clientY + 14}px`;
  });
  canvas.addEventListener("pointerleave", () => { hint.hidden = true; });
  canvas.addEventListener("pointerdown", (event) => { drag = [at(event).px, at(event).px]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", (event) => {
    if (!drag || !data) return;
    const [a, b] = [Math.min(...drag), Math.max(...drag)];
    drag = null;
    if (b - a < 5) {
      const task = taskAt(at(event));
      if (task) location.hash = `#/task/${encodeURIComponent(task[4])}`;
      else draw();
      return;
    }
    const range = [timeAt(a), timeAt(b)];
    live = false;
    view = range;
    load();
  });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: () => move(-0.25, 1), ArrowRight: () => move(0.25, 1), "+": () => move(0, 0.5), "-": () => move(0, 2), "0": () => whole.click() };
    if (steps[event.key]) { event.preventDefault(); steps[event.key](); }
  });
  const redraw = () => data && draw();
  window.addEventListener("resize", redraw);
  window.addEventListener("theme", redraw);
  load();
  return () => { left = true; clearTimeout(timer); hint.remove(); window.removeEventListener("resize", redraw); window.removeEventListener("theme", redraw); };
}

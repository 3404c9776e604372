// The overview: engines by host, the queue, throughput, warnings, the last failures.

import { ask, bytes, debounce, duration, h, number, queryLink, rate, runs, runsFor, show, stateOf, table, taskLink, time } from "./dom.js";
import { chart } from "./chart.js";

/** Steps of the slider. */
const STEPS = 1000;
const STATES = ["pending", "running", "completed", "failed", "aborted"];

export function overview(root, params, app) {
  const title = h("h1", {}, app.about.name || "Overview");
  const warnings = h("ul", { class: "warnings", "aria-label": "Warnings" });
  const numbers = h("div", { class: "numbers" });
  const canvas = h("canvas", { role: "img", "aria-label": "Throughput" });
  const chartNote = h("p", { class: "soft small" });
  const throughput = h("section", { class: "card w7" }, h("h2", {}, "Throughput"), canvas, chartNote);
  const moment = h("input", { type: "range", id: "moment", min: 0, max: STEPS, value: STEPS, "aria-label": "Moment", oninput: () => choose() });
  const shownAt = h("span", { class: "soft small", role: "status" }), now = h("button", { type: "button", onclick: () => { moment.value = STEPS; choose(); } }, "The end");
  const control = h("div", { class: "row", hidden: true }, h("label", { for: "moment", class: "small" }, "At"), moment, now, shownAt);
  throughput.append(control);
  let past = null, asked = 0;
  const queue = h("section", { class: "card w5" });
  const engines = h("section", { class: "card w12" });
  const failures = h("section", { class: "card w12" });
  root.append(title, warnings, numbers, h("div", { class: "grid" }, throughput, queue, engines, failures));

  /** The instant that the slider stands at; null: the end. */
  const instant = (news) => {
    const points = news?.throughput || [], share = Number(moment.value) / STEPS;
    if (news?.live || !points.length || share >= 1) return null;
    const half = news.bar_seconds / 2, from = points[0][0] - half, to = points.at(-1)[0] + half;
    return from + share * (to - from);
  };

  const choose = debounce(async () => {
    const at = instant(app.news), mine = ++asked;
    try {
      const found = at === null ? null : await ask("past", { at });
      if (mine !== asked) return;
      past = found;
    } catch (error) { if (mine === asked) { past = null; shownAt.textContent = error.message; return; } }
    redraw();
  }, 60);

  const draw = (current) => {
    if (current.problem) return;
    control.hidden = current.live || !(current.throughput || []).length;
    if (current.live) past = null;
    const news = past ? { ...current, ...past, warnings: [], priorities: [] } : current;
    shownAt.textContent = past ? `as it was at ${time(past.at, true)}` : "as it was at the end";
    show(warnings, (news.warnings || []).map((w) =>
      h("li", {}, w.when ? `${time(w.when)}: ` : "", w.text, w.query ? [" ", queryLink(w.query, "Show them")] : null)));
    show(numbers, figures(news));
    drawThroughput(current, canvas, chartNote, past?.at);
    show(queue, h("h2", {}, "Queue"), labels(news), priorities(news), reasons(news));
    show(engines, ...(news.live ? liveEngines(news) : past ? enginesThen(past) : pastEngines(news)));
    show(failures, h("h2", {}, "Last failures"), failed(news));
  };
  const redraw = () => app.news && draw(app.news);
  const off = app.onNews(draw);
  window.addEventListener("resize", redraw);
  window.addEventListener("theme", redraw);
  return () => { off(); window.removeEventListener("resize", redraw); window.removeEventListener("theme", redraw); };
}

function figures(news) {
  const one = (value, text) => h("div", { class: "number" }, h("b", {}, value), h("span", {}, text));
  const states = news.states || {};
  const found = [];
  if (news.live) {
    found.push(one(`${number(news.busy)} of ${number(news.engine_count)}`, "engines busy"));
    found.push(one(rate(news.rate), "tasks per second"));
    found.push(one(number(news.unassigned), "waiting for an engine"));
  }
  for (const state of STATES)
    if (states[state] || state !== "aborted")
      found.push(h("div", { class: "number" }, h("b", {}, number(states[state] || 0)),
        h("span", {}, h("a", { href: "#/tasks?" + new URLSearchParams({ query: JSON.stringify({ state }) }) }, stateOf(state)))));
  return found;
}

function drawThroughput(news, canvas, note, at) {
  const points = news.throughput || [];
  if (!points.length) {
    chart(canvas, [], { height: 150, from: news.now - 60, to: news.now, label: number, clock: (t) => time(t) });
    note.textContent = news.live ? "It is measured from now on." : "No task has ended.";
    return;
  }
  const bars = news.live ? null : news.bar_seconds;
  const from = bars ? points[0][0] - bars / 2 : Math.min(points[0][0], news.now - 60);
  const to = bars ? points.at(-1)[0] + bars / 2 : news.now;
  chart(canvas, points, { height: 150, from, to, bars, at, label: (v) => (v >= 10 || v === 0 ? number(v) : v.toPrecision(2)), clock: (t) => time(t) });
  const most = Math.max(...points.map((p) => p[1]));
  note.textContent = `Tasks per second; at most ${rate(most)}` +
    (bars ? `, from ${time(from)} to ${time(to)}.` : `, now ${rate(points.at(-1)[1])}.`);
  canvas.setAttribute("aria-label", note.textContent);
}

function labels(news) {
  return table([
    { name: "Label", cell: (r) => queryLink({ completed: null, label: r.label }, r.label === null ? "(no label)" : r.label) },
    { name: "Left", right: true, cell: (r) => number(r.left ?? r.total - r.ended) },
    { name: "Done", cell: (r) => r.total ? h("span", { class: "bar", role: "img", "aria-label": `${Math.floor((100 * r.ended) / r.total)} percent`, title: `${number(r.ended)} of ${number(r.total)}` }, h("i", { "width%": (100 * r.ended) / r.total })) : "" },
    { name: "Remaining", right: true, cell: (r) => r.seconds_left ? `about ${duration(r.seconds_left)}` : "" },
  ], news.labels || [], "No task is unfinished.");
}

function priorities(news) {
  const rows = (news.priorities || []).filter((p) => p.count);
  if (rows.length < 2 && (!rows.length || !rows[0].priority)) return null;
  rows.sort((a, b) => b.priority - a.priority);
  return h("p", { class: "small" }, "By priority: ", rows.map((p, i) => [i ? ", " : "", queryLink(p.priority
    ? { completed: null, "header.priority": p.priority } : { completed: null, "header.priority": null }, `${p.priority}`), ` (${number(p.count)})`]));
}

function reasons(news) {
  const rows = news.reasons || [];
  if (!rows.length) return null;
  return h("div", {}, h("h2", {}, "Why the oldest tasks wait"), h("ul", { class: "small" }, rows.map((r) =>
    h("li", {}, taskLink(r.example), r.count > 1 ? ` and ${number(r.count - 1)} more` : "", `: ${r.reason}`))));
}

function liveEngines(news) {
  const hosts = news.hosts || [];
  const found = [h("h2", {}, "Engines")];
  if (hosts.length > 1)
    found.push(table([
      { name: "Host", cell: (r) => r.host },
      { name: "Engines", right: true, cell: (r) => number(r.engines) },
      { name: "Busy", right: true, cell: (r) => number(r.busy) },
      ...(hosts.some((r) => r.silent) ? [{ name: "Silent", right: true, cell: (r) => number(r.silent) }] : []),
      { name: "Tasks held", right: true, cell: (r) => number(r.held) },
      { name: "Completed", right: true, cell: (r) => number(r.completed) },
      { name: "Rate", right: true, cell: (r) => rate(r.rate) },
      { name: "Memory", right: true, cell: (r) => bytes(r.memory || null) },
    ], hosts));
  found.push(table([
    { name: "Engine", right: true, cell: (e) => `${e.id}` },
    { name: "Host", cell: (e) => e.host },
    { name: "Process", right: true, cell: (e) => `${e.pid}` },
    { name: "Holds", right: true, cell: (e) => number(e.held) },
    { name: "Completed", right: true, cell: (e) => number(e.completed) },
    { name: "Rate", right: true, cell: (e) => rate(e.rate) },
    { name: "Memory", right: true, cell: (e) => bytes(e.memory) },
    { name: "Runs", cell: runs },
    { name: "For", right: true, cell: (e) => runsFor(e, news.now) },
  ], news.engines || [], "There are no engines."));
  if (news.engine_count > (news.engines || []).length)
    found.push(h("p", { class: "soft small" }, `These ${news.engines.length} are silent, or have been running something for longest; there are ${number(news.engine_count)}.`));
  return found;
}

function enginesThen(past) {
  return [h("h2", {}, "Engines that ran something then"), table([
    { name: "Engine", cell: (e) => queryLink({ engine_id: e.id }, `${e.id}`) },
    { name: "Ran", cell: (e) => runs(e.running) },
    { name: "Since", nowrap: true, cell: (e) => time(e.started, true) },
    { name: "For", right: true, cell: (e) => duration(Math.max(0, past.at - e.started)) },
  ], past.then_running, "No engine ran a task at this moment.")];
}

function pastEngines(news) {
  return [h("h2", {}, "Engines that ran tasks"), table([
    { name: "Engine", cell: (e) => queryLink({ engine_id: e.id }, `${e.id}`) },
    { name: "Tasks", right: true, cell: (e) => number(e.completed) },
    { name: "Time in tasks", right: true, cell: (e) => duration(e.seconds) },
  ], news.past_engines || [], news.past_engines ? "No task has ended." : "Counting …"),
    news.past_engine_count > (news.past_engines || []).length
      ? h("p", { class: "soft small" }, `These ${news.past_engines.length} spent the most time in tasks; there were ${number(news.past_engine_count)}.`) : null].filter(Boolean);
}

function failed(news) {
  return table([
    { name: "When", nowrap: true, cell: (r) => time(r.completed) },
    { name: "Task", cell: (r) => taskLink(r.msg_id) },
    { name: "Label", cell: (r) => r.label || "" },
    { name: "Function", cell: (r) => r.function || "" },
    { name: "Engine", right: true, cell: (r) => (r.engine === null ? "" : `${r.engine}`) },
    { name: "Error", cell: (r) => h("span", { class: "error" }, `${r.ename}: ${r.evalue}`) },
  ], news.failures || [], "No task has failed.");
}

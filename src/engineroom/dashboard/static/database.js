// The database: its size, what it holds and keeps, and whether it is sound.

import { act, ask, bytes, duration, h, number, queryLink, show, stateOf, time } from "./dom.js";

export function database(root, params, app) {
  const facts = h("section", { class: "card w7" }), kept = h("section", { class: "card w5" }), check = h("section", { class: "card w12" });
  const wrong = h("div", { class: "wrong", role: "alert", hidden: true });
  root.append(h("h1", {}, "Database"), wrong, h("div", { class: "grid" }, facts, kept, check));
  let left = false, timer = null;

  check.addEventListener("click", async (event) => {
    if (event.target.tagName !== "BUTTON") return;
    try { await act("database/verify", {}); } catch (error) { wrong.hidden = false; wrong.textContent = error.message; }
    load();
  });

  async function load() {
    clearTimeout(timer);
    try {
      const found = await ask("database");
      if (left) return;
      wrong.hidden = true;
      show(facts, h("h2", {}, "Contents"), list([
        ["place", h("span", { class: "mono" }, found.url)],
        ["records", number(found.records)],
        ...Object.entries(found.states).map(([state, count]) => [stateOf(state), queryLink({ state }, number(count))]),
        ["pinned", found.pinned ? queryLink({ pinned: true }, number(found.pinned)) : null],
        ["submitted", found.first && `${time(found.first, true)} to ${time(found.last, true)}`],
        ["size", found.used === undefined ? null : bytes(found.used)],
        ["unused in the file", found.unused ? bytes(found.unused) : null],
        ["large buffers", found.large ? bytes(found.large) : null],
        ["free on the disk", found.room ? bytes(found.room) : null],
      ]));
      show(kept, h("h2", {}, "Retention"), retention(found.retention));
      drawCheck(found);
      timer = setTimeout(load, found.check?.running ? 500 : 5000);
    } catch (error) {
      if (left) return;
      wrong.hidden = false;
      wrong.textContent = error.message;
      timer = setTimeout(load, 5000);
    }
  }

  function drawCheck(found) {
    const { check: state, can_check } = found;
    const parts = [h("h2", {}, "Check")];
    if (state?.running) parts.push(h("p", { role: "status" }, `Reading ${state.what || ""}: ${number(state.done)}${state.total ? ` of ${number(state.total)}` : ""}`), h("progress", state.total ? { value: state.done, max: state.total, "aria-label": "Check" } : { "aria-label": "Check" }));
    if (state?.problem) parts.push(h("div", { class: "wrong" }, state.problem));
    if (state?.findings) {
      const f = state.findings;
      parts.push(h("p", { role: "status" }, f.sound ? h("span", { class: "state completed" }, "It is sound") : h("span", { class: "state failed" }, "It is damaged"), ` ${number(f.good)} records are good.`),
        f.sound ? null : list([["damaged records", `${number(f.damaged_count)}: ${f.damaged.join(", ")}`], ["have lost large buffers", number(f.lightened)],
          ["damaged functions", number(f.damaged_functions)], ["structure", f.structure.slice(0, 5).join("; ")], ["what to do", h("code", {}, `engineroom db repair ${f.path}`)]]));
    }
    if (!state) parts.push(h("p", { class: "soft" }, "A check reads all records and compares them with their checksums. The cluster may go on meanwhile."));
    if (can_check && !app.about.read_only && !state?.running) parts.push(h("button", { type: "button" }, state ? "Check again" : "Check it"));
    if (!can_check) parts.push(h("p", { class: "soft" }, "Only a database in a file on this host can be checked here."));
    show(check, ...parts);
  }

  load();
  return () => { left = true; clearTimeout(timer); };
}

function retention(settings) {
  if (!settings) return h("p", { class: "soft" }, "It is not known here what a controller would keep of it.");
  const days = (s) => duration(s);
  const rows = [
    ["records are dropped", settings.age && `${days(settings.age)} after their end`],
    ["arguments and results are dropped", settings.payload_age && `${days(settings.payload_age)} after the end`],
    ["records at most", settings.count && number(settings.count)],
    ["size at most", settings.bytes && bytes(settings.bytes)],
    ["large buffers at most", settings.payload_bytes && bytes(settings.payload_bytes)],
    ...(settings.rules || []).map((rule) => [[rule.state, rule.label].filter(Boolean).join(", ") || "all", [rule.age && `dropped after ${days(rule.age)}`, rule.payload_age && `buffers dropped after ${days(rule.payload_age)}`].filter(Boolean).join(", ") || "kept"]),
    ["new tasks are refused below", settings.min_free && `${bytes(settings.min_free)} of free disk`],
  ];
  const dropping = rows.slice(0, 4).some(([, value]) => value) || (settings.rules || []).length;
  return [dropping ? null : h("p", {}, "Every record is kept."), list(rows)];
}

const list = (pairs) => h("dl", {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== 0).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

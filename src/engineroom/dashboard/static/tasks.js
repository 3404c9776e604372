// The page of tasks: a query, its records as a table or in groups, and actions on all that match.

import { act, ask, debounce, duration, h, number, queryLink, stateOf, table, taskLink, time } from "./dom.js";
import { completion } from "./completion.js";

const PAGE = 50;
const STATES = ["pending", "running", "completed", "failed", "aborted"];
const GROUPS = ["label", "function", "error", "state", "engine", "session"];
const SORTS = { State: "state", Label: "label", Engine: "engine_id", Submitted: "submitted", Took: "duration", Ended: "completed" };
const ACTIONS = [
  ["resubmit", "Resubmit", "Run finished tasks again, as new tasks"],
  ["abort", "Abort", "End tasks that have not started"],
  ["cancel", "Cancel", "End tasks, also running ones"],
  ["purge", "Purge", "Delete the records of finished tasks"],
];

export function tasks(root, params, app) {
  let at = read(params), turn = 0, abort = new AbortController(), timer = null;
  const box = h("textarea", { id: "query", rows: 1, spellcheck: "false", autocomplete: "off", "aria-describedby": "query-help",
    placeholder: '{"state": "failed", "submitted": {"$gt": "-2h"}}' });
  const suggested = completion(box, ask("keys").catch(() => []));
  const wrong = h("div", { class: "wrong", role: "alert", hidden: true });
  const states = h("div", { class: "row", role: "group", "aria-label": "State" });
  const views = h("div", { class: "row", role: "group", "aria-label": "View" });
  const actions = h("div", { class: "row", role: "group", "aria-label": "Actions on all tasks that match" });
  const result = h("section", { class: "card", "aria-label": "Tasks that match" });
  const counted = h("p", { class: "soft", role: "status" });
  const form = h("form", { onsubmit: (e) => { e.preventDefault(); go({ query: box.value, skip: 0 }); } },
    h("label", { for: "query" }, h("h2", {}, "Query")), suggested, 
    h("div", { class: "row", style: null }, h("button", { class: "main", type: "submit" }, "Search"),
      h("button", { type: "button", onclick: () => go({ query: "", skip: 0, by: "" }) }, "Clear"),
      h("span", { id: "query-help", class: "soft small" }, "A query as for db_query, as JSON or a Python dict. Times: \"-2h\", \"2026-01-31T14:00\". Enter searches, Shift+Enter begins a line.")));
  box.addEventListener("keydown", (e) => {
    if (e.key === "Enter" && !e.shiftKey && !e.defaultPrevented) { e.preventDefault(); go({ query: box.value, skip: 0 }); }
  });
  root.append(h("h1", {}, "Tasks"), h("section", { class: "card" }, form, states, wrong), h("div", { class: "row" }, views, h("span", { class: "gap" }), actions), result);

  function go(change) {
    const next = { ...at, ...change };
    const given = Object.fromEntries(Object.entries(next).filter(([name, value]) => value && !(name === "sort" && value === "-submitted")));
    const hash = "#/tasks" + (Object.keys(given).length ? "?" + new URLSearchParams(given) : "");
    if (location.hash === hash) return load();
    location.hash = hash;
  }

  function frame() {
    if (document.activeElement !== box || !box.value) box.value = at.query;
    const query = parsed(at.query);
    states.replaceChildren(...["", ...STATES].map((state) => h("button", { type: "button",
      "aria-pressed": String(state ? query?.state === state : at.query === ""),
      onclick: () => { const next = { ...(query || {}) }; delete next.state; if (state) next.state = state;
        box.value = Object.keys(next).length ? JSON.stringify(next) : ""; go({ query: box.value, skip: 0 }); } }, state || "all")));
    views.replaceChildren(h("button", { type: "button", "aria-pressed": String(!at.by), onclick: () => go({ by: "", skip: 0 }) }, "Table"),
      ...GROUPS.map((by) => h("button", { type: "button", "aria-pressed": String(at.by === by), onclick: () => go({ by, skip: 0 }) }, `By ${by}`)));
    const save = h("button", { type: "button", title: "Save the records of all tasks that match as a file", onclick: () => offer(at.query, at.session) }, "Export …");
    actions.replaceChildren(save, ...(app.about.read_only ? [h("span", { class: "soft small" }, "read only")] : ACTIONS.map(([name, title, about]) =>
      h("button", { type: "button", title: about, disabled: !at.query.trim() && "", class: name === "purge" ? "danger" : null,
        onclick: () => propose(name, at.query, load) }, `${title} …`))));
  }

  async function load() {
    frame();
    const mine = ++turn;
    abort.abort();
    abort = new AbortController();
    try {
      if (at.by) {
        const found = await ask("groups", { query: at.query, session: at.session, by: at.by }, abort.signal);
        if (mine === turn) result.replaceChildren(groups(found));
      } else {
        const params = { query: at.query, session: at.session };
        const counting = ask("count", params, abort.signal).catch((error) => ({ error }));
        const found = await ask("tasks", { ...params, sort: at.sort, skip: at.skip, limit: PAGE }, abort.signal);
        if (mine !== turn) return;
        result.replaceChildren(counted, rows(found.rows), pager(null, found.rows.length));
        const { count } = await counting;
        if (mine !== turn) return;
        counted.textContent = count === undefined ? "" : `${number(count)} ${count === 1 ? "task matches" : "tasks match"}`;
        if (count !== undefined) result.lastChild.replaceWith(pager(count, found.rows.length));
      }
      wrong.hidden = true;
    } catch (error) {
      if (error.name === "AbortError" || mine !== turn) return;
      wrong.hidden = false;
      wrong.textContent = error.message;
      result.replaceChildren(h("p", { class: "soft" }, "No answer."));
    }
  }

  function rows(found) {
    const now = app.news?.now || Date.now() / 1000;
    const columns = [
      { name: "Task", cell: (r) => taskLink(r.msg_id) },
      { name: "State", cell: (r) => stateOf(r.state) },
      { name: "Label", cell: (r) => (r.label === null ? "" : r.label) },
      { name: "Runs", cell: (r) => h("span", { class: "mono" }, r.what + (r.arguments ? ` ${r.arguments}` : "")) },
      { name: "Engine", right: true, cell: (r) => (r.engine === null ? "" : `${r.engine}`) },
      { name: "Submitted", nowrap: true, cell: (r) => h("span", { title: time(r.submitted, true) }, time(r.submitted)) },
      { name: "Took", right: true, cell: (r) => r.state === "running" && r.started ? `${duration(now - new Date(r.started) / 1000)} …` : duration(r.duration) },
      { name: "Ended", nowrap: true, cell: (r) => h("span", { title: time(r.completed, true) }, time(r.completed)) },
      { name: "Error", cell: (r) => r.error && h("span", { class: "error" }, r.error) },
    ];
    const made = table(columns, found, "No task matches.");
    made.querySelectorAll("th").forEach((th) => {
      const key = SORTS[th.textContent];
      if (!key) return;
      const descending = at.sort === `-${key}`, ascending = at.sort === key;
      if (descending || ascending) th.setAttribute("aria-sort", descending ? "descending" : "ascending");
      th.replaceChildren(h("button", { type: "button", title: `Sort by ${key}`, onclick: () => go({ sort: descending ? key : `-${key}`, skip: 0 }) },
        th.textContent, descending ? " ▼" : ascending ? " ▲" : ""));
    });
    return made;
  }

  function pager(count, length) {
    const skip = Number(at.skip) || 0, more = count === null ? length === PAGE : skip + length < count;
    if (!skip && !more) return h("div", {});
    return h("div", { class: "row" }, h("button", { type: "button", disabled: !skip && "", onclick: () => go({ skip: Math.max(0, skip - PAGE) }) }, "‹ Previous"),
      h("span", { class: "soft" }, `${number(skip + 1)} to ${number(skip + length)}${count === null ? "" : ` of ${number(count)}`}`),
      h("button", { type: "button", disabled: !more && "", onclick: () => go({ skip: skip + PAGE }) }, "Next ›"));
  }

  function groups(found) {
    const isError = found.by === "error";
    return h("div", {}, table([
      { name: found.by[0].toUpperCase() + found.by.slice(1), cell: (g) => queryLink(g.query, g.name === null ? "(none)" : String(g.name)) },
      { name: "Tasks", right: true, cell: (g) => number(g.count) },
      ...(isError ? [
        { name: "Last message", cell: (g) => h("span", { class: "error" }, g.evalue || "") },
        { name: "First seen", nowrap: true, cell: (g) => time(g.first_seen) },
        { name: "Last seen", nowrap: true, cell: (g) => time(g.last_seen) },
        { name: "Example", cell: (g) => g.example && taskLink(g.example) },
      ] : [
        { name: "Mean", right: true, cell: (g) => duration(g.mean) },
        { name: "Median", right: true, cell: (g) => duration(g.p50) },
        { name: "95 %", right: true, cell: (g) => duration(g.p95) },
        { name: "Longest", right: true, cell: (g) => duration(g.max) },
      ]),
    ], found.rows, isError ? "No task that matches has failed." : "No task matches."),
    found.more ? h("p", { class: "soft small" }, `${number(found.more)} smaller groups are left out.`) : null);
  }

  const refresh = debounce(() => load(), 50);
  let lastCompleted = null;
  const off = app.onNews((news) => { // a first page without a choice of its own follows what happens
    const now = JSON.stringify([news.completed, news.unassigned, news.states]);
    if (lastCompleted !== null && lastCompleted !== now && !at.by && !Number(at.skip) && !document.querySelector("dialog[open]") && !root.contains(document.activeElement)) refresh();
    lastCompleted = now;
  });
  const update = (params) => { at = read(params); load(); return true; };
  load();
  return Object.assign(() => { off(); abort.abort(); clearTimeout(timer); }, { update });
}

function read(params) {
  return { query: params.get("query") || "", session: params.get("session") || "", sort: params.get("sort") || "-submitted",
    skip: params.get("skip") || 0, by: params.get("by") || "" };
}

function parsed(text) {
  if (!text.trim()) return {};
  try { const found = JSON.parse(text); return typeof found === "object" && found !== null && !Array.isArray(found) ? found : null; } catch { return null; }
}

/** Offer the records of all tasks that match as files. */
export async function offer(query, session) {
  const text = h("p", {}, "Counting …"), files = h("div", { class: "row" });
  const no = h("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, h("h1", { id: "dialog-title" }, "Export"),
    h("p", {}, query.trim() ? ["All tasks that match ", h("code", {}, query)] : "All tasks"), text, files);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  const link = (format, title) => h("a", { class: "button", download: `tasks.${format}`,
    href: "api/export?" + new URLSearchParams({ query, session: session || "", format }) }, title);
  files.append(no);
  try {
    const { count } = await ask("count", { query, session: session || "" });
    text.textContent = `${number(count)} record${count === 1 ? "" : "s"}, with all keys but arguments' and results' bytes.`;
    if (count) files.prepend(link("jsonl", "JSON lines"), link("csv", "CSV"));
  } catch (error) { text.textContent = error.message; text.className = "wrong"; }
}

/** Show what an action would do, and do it if the user wants. */
export async function propose(action, query, done) {
  const text = h("p", {}, "Counting …"), yes = h("button", { class: action === "resubmit" ? "main" : "danger", disabled: "" }, "…");
  const first = h("ul", { class: "small mono" });
  const no = h("button", { onclick: () => dialog.close() }, "Leave it");
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, h("h1", { id: "dialog-title" }, action[0].toUpperCase() + action.slice(1)),
    h("p", {}, "All tasks that match ", h("code", {}, query)), text, first, h("div", { class: "row" }, yes, no));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  try {
    const found = await act(`act/${action}`, { query, dry_run: true });
    text.textContent = found.text + ".";
    first.replaceChildren(...found.first.map((id) => h("li", {}, id)), found.count > found.first.length ? h("li", {}, "…") : "");
    yes.textContent = `${action[0].toUpperCase() + action.slice(1)} ${number(found.count)} task${found.count === 1 ? "" : "s"}`;
    yes.disabled = !found.count;
    yes.addEventListener("click", async () => {
      yes.disabled = true;
      try {
        const told = await act(`act/${action}`, { query, dry_run: false, seen: found.count });
        text.textContent = `Done: ${told.text}.`;
        first.replaceChildren();
        yes.remove();
        no.textContent = "Close";
        no.focus();
        done?.();
      } catch (error) { text.textContent = error.message; text.className = "wrong"; }
    });
    if (found.count) yes.focus();
  } catch (error) { text.textContent = error.message; text.className = "wrong"; }
}

// The engines: interrupt and restart them, and the logs of the cluster's processes.

import { act, ask, bytes, h, number, rate, runs, runsFor, show, table, time } from "./dom.js";

export function engines(root, params, app) {
  const list = h("section", { class: "card" }), told = h("p", { role: "status", class: "soft" });
  const logs = h("div", { class: "row", role: "group", "aria-label": "Logs" }), title = h("h2", {}, "Logs");
  const text = h("pre", { tabindex: 0, "aria-label": "Log", hidden: true });
  const wrong = h("div", { class: "wrong", role: "alert", hidden: true });
  root.append(h("h1", {}, "Engines"), wrong, list, told, h("section", { class: "card" }, title, logs, text));
  let left = false, timer = null, shown = params.get("log") || "";

  list.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-action]");
    if (button) confirmed(button.dataset.action, Number(button.dataset.engine), told);
  });

  const off = app.onNews((news) => {
    if (!news.live) return show(list, h("p", { class: "soft" }, "No cluster is running, so there are no engines. ", h("a", { href: "#/tasks?by=engine" }, "Tasks by engine")));
    show(list, table([
      { name: "Engine", right: true, cell: (e) => h("a", { href: "#/tasks?" + new URLSearchParams({ query: JSON.stringify({ engine_id: e.id }) }) }, `${e.id}`) },
      { name: "Host", cell: (e) => e.host },
      { name: "Process", right: true, cell: (e) => `${e.pid}` },
      { name: "Holds", right: true, cell: (e) => number(e.held) },
      { name: "Completed", right: true, cell: (e) => number(e.completed) },
      { name: "Rate", right: true, cell: (e) => rate(e.rate) },
      { name: "Memory", right: true, cell: (e) => bytes(e.memory) },
      { name: "Runs", cell: runs },
      { name: "For", right: true, cell: (e) => runsFor(e, news.now) },
      ...(app.about.read_only ? [] : [{ name: "Actions", nowrap: true, cell: (e) => [
        h("button", { type: "button", "data-action": "interrupt", "data-engine": e.id, "aria-label": `Interrupt engine ${e.id}` }, "Interrupt …"), " ",
        h("button", { type: "button", "data-action": "restart", "data-engine": e.id, "aria-label": `Restart engine ${e.id}` }, "Restart …")] }]),
    ], news.engines || [], "There are no engines. Start some with `ipcluster engines`."));
  });

  async function load() {
    try {
      const found = await ask("logs");
      if (left) return;
      wrong.hidden = true;
      logs.hidden = false;
      if (!found.length) logs.replaceChildren(h("span", { class: "soft" }, "There are no logs here."));
      else {
        const focused = document.activeElement?.dataset?.log;
        logs.replaceChildren(...found.slice(0, 40).map((log) => h("button", { type: "button", "data-log": log.name, "aria-pressed": String(log.name === shown), title: `${bytes(log.size)}, ${time(log.changed)}`,
          onclick: () => { shown = shown === log.name ? "" : log.name; clearTimeout(timer); load(); } }, log.name)));
        if (focused) logs.querySelector(`[data-log="${CSS.escape(focused)}"]`)?.focus();
      }
      text.hidden = !shown;
      if (shown) {
        const log = await ask("log", { name: shown });
        if (left) return;
        const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
        const content = log.text || "It is empty.";
        if (text.textContent !== content) text.textContent = content;
        if (atEnd) text.scrollTop = text.scrollHeight;
      }
    } catch (error) {
      if (left) return;
      wrong.hidden = false;
      wrong.textContent = error.message;
    }
    if (!left) timer = setTimeout(load, 2000);
  }
  load();
  return () => { left = true; off(); clearTimeout(timer); };
}

function confirmed(action, engine, told) {
  const about = action === "interrupt" ? "The task that it runs gets a KeyboardInterrupt." : "A new engine takes its number when it has finished what it runs. What is in its namespace is lost, and direct tasks that it has not started fail.";
  const yes = h("button", { class: "danger" }, `${action[0].toUpperCase()}${action.slice(1)} engine ${engine}`), no = h("button", {}, "Leave it");
  const dialog = h("dialog", { "aria-labelledby": "engine-title" }, h("h1", { id: "engine-title" }, `${action[0].toUpperCase()}${action.slice(1)} engine ${engine}?`), h("p", {}, about), h("div", { class: "row" }, yes, no));
  no.addEventListener("click", () => dialog.close());
  yes.addEventListener("click", async () => {
    yes.disabled = true;
    try {
      await act(`engines/${action}`, { engines: [engine] });
      told.textContent = action === "interrupt" ? `Engine ${engine} was interrupted.` : `Engine ${engine} will be replaced.`;
    } catch (error) { told.textContent = error.message; }
    dialog.close();
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  no.focus();
}

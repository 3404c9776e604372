// One task: its times, attempts, error, output, with what it was made, and what depends on it.

import { ask, bytes, duration, h, number, queryLink, seconds, stateOf, table, taskLink, time } from "./dom.js";
import { propose } from "./tasks.js";

const WISHES = ["retries", "targets", "timeout", "priority", "resources", "run_timeout", "scheme", "cache"];

export function task(root, params, app, id) {
  const place = h("div", {}, h("p", { class: "soft" }, "Reading …"));
  root.append(place);
  let left = false, timer = null, state = null;

  async function load() {
    try {
      const found = await ask(`task/${encodeURIComponent(id)}`);
      if (left) return;
      state = found.record.state;
      place.replaceChildren(...draw(found));
      children(found.record.msg_id);
      if (found.record.completed === null) output(found.record.msg_id);
    } catch (error) {
      if (!left) place.replaceChildren(h("h1", {}, "Task"), h("div", { class: "wrong", role: "alert" }, error.message));
    }
  }

  async function children(id) {
    const list = place.querySelector("#children");
    try {
      const found = await ask(`task/${encodeURIComponent(id)}/children`);
      list?.replaceChildren(...(found.length ? links(found.map((c) => c.msg_id)) : ["none"]));
    } catch { list?.replaceChildren("not known: the database is too large to look for them"); }
  }

  async function output(id) {
    if (left) return;
    try {
      const found = await ask(`task/${encodeURIComponent(id)}/output`);
      if (left) return;
      for (const stream of ["stdout", "stderr"]) {
        const pre = place.querySelector(`#${stream}`);
        if (!pre || pre.textContent === found[stream]) continue;
        const atEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4;
        pre.textContent = found[stream];
        pre.parentElement.hidden = !found[stream];
        if (atEnd) pre.scrollTop = pre.scrollHeight;
      }
      if (found.ended) return app.news?.live ? load() : null;
    } catch { /* the next try may have an answer */ }
    timer = setTimeout(() => output(id), 1000);
  }

  function draw({ record, parents, explanation, provenance, code }) {
    const error = record.result_content || {}, header = record.header || {};
    const query = JSON.stringify({ msg_id: record.msg_id });
    const buttons = app.about.read_only ? [] : record.completed === null
      ? [button("abort", "Abort …"), button("cancel", "Cancel …")] : [button("resubmit", "Resubmit …"), button("purge", "Purge …")];
    function button(action, title) { return h("button", { type: "button", onclick: () => propose(action, query, load) }, title); }
    const source = record.content?.code ?? provenance?.function?.source;
    const traceback = Array.isArray(error.traceback) ? error.traceback.join("\n") : error.traceback || "";
    const value = record.pyout?.data?.["text/plain"];
    return [
      h("h1", {}, "Task ", h("span", { class: "mono" }, record.msg_id), " ", stateOf(record.state)),
      h("div", { class: "row" }, buttons, h("a", { class: "button", href: `#/graph?task=${encodeURIComponent(record.msg_id)}` }, "Graph"),
        record.label !== null ? h("a", { class: "button", href: "#/tasks?" + new URLSearchParams({ query: JSON.stringify({ label: record.label }) }) }, "Tasks with this label") : null,
        error.ename ? h("a", { class: "button", href: "#/tasks?" + new URLSearchParams({ query: JSON.stringify({ "result_content.ename": error.ename }) }) }, "Tasks with this error") : null),
      explanation ? h("p", { class: "card" }, `It is not finished: ${explanation}`) : null,
      error.ename ? h("section", { class: "card" }, h("h2", {}, "Error"), h("p", { class: "error" }, `${error.ename}: ${error.evalue ?? ""}`),
        traceback ? h("pre", { tabindex: 0, "aria-label": "Traceback" }, plain(traceback)) : null) : null,
      h("div", { class: "grid" },
        h("section", { class: "card w6" }, h("h2", {}, "What"), facts([
          ["label", record.label],
          ["function", provenance?.function ? `${provenance.function.name || record.function_name || "?"}` : record.function_name],
          ["arguments", record.arguments && h("code", {}, record.arguments)],
          ["value", value && h("code", {}, String(value).slice(0, 2000))],
          ["kind", `${String(header.msg_type || "").replace("_request", "")}, ${record.queue === "mux" ? "direct" : "load-balanced"}`],
          ["session", record.client_uuid && queryLink({ client_uuid: record.client_uuid }, record.client_uuid)],
          ...WISHES.filter((w) => header[w]).map((w) => [w, typeof header[w] === "object" ? JSON.stringify(header[w]) : String(header[w])]),
          ["metadata", record.metadata && Object.keys(record.metadata).length ? JSON.stringify(record.metadata) : null],
          ["resubmitted as", record.resubmitted && taskLink(record.resubmitted)],
          ["result taken from", record.cached_from && taskLink(record.cached_from)],
          ["pinned", record.pinned ? "yes: retention leaves it alone" : null],
        ])),
        h("section", { class: "card w6" }, h("h2", {}, "When and where"), facts([
          ["submitted", time(record.submitted, true)],
          ["started", record.started && `${time(record.started, true)}, after ${duration(seconds(record.started) - seconds(record.submitted))} of waiting`],
          ["ended", record.completed && `${time(record.completed, true)}${record.duration !== null ? `, after ${duration(record.duration)} of running` : ""}`],
          ["received", record.received && `${time(record.received, true)}`],
          ["engine", record.engine_id === null ? null : [queryLink({ engine_id: record.engine_id }, `${record.engine_id}`), hostOf(record)]],
          ["waits for", parents.length ? links(parents) : null],
          ["needed by", h("span", { id: "children" }, "…")],
        ]))),
      (record.attempts || []).length ? h("section", { class: "card" }, h("h2", {}, "Attempts"), table([
        { name: "#", right: true, cell: (a) => `${a.number ?? ""}` },
        { name: "Engine", right: true, cell: (a) => (a.engine_id === null || a.engine_id === undefined ? "" : `${a.engine_id}`) },
        { name: "Host", cell: (a) => a.host || "" },
        { name: "Started", nowrap: true, cell: (a) => time(a.started, true) },
        { name: "Took", right: true, cell: (a) => (a.started && a.ended ? duration(seconds(a.ended) - seconds(a.started)) : "") },
        { name: "Most memory", right: true, cell: (a) => bytes(a.peak_memory) },
        { name: "Ended by", cell: (a) => a.cause || "" },
      ], record.attempts)) : null,
      stream("stdout", "Output (stdout)", record.stdout), stream("stderr", "Output (stderr)", record.stderr),
      source ? h("section", { class: "card" }, h("h2", {}, record.content?.code ? "Code" : "Source of the function"), h("pre", { tabindex: 0 }, source)) : null,
      h("section", { class: "card" }, h("h2", {}, "Run it again in your own process"), h("pre", { tabindex: 0 }, code)),
      environment(provenance),
    ].filter(Boolean);
  }

  load();
  return () => { left = true; clearTimeout(timer); };
}

function stream(name, title, text) {
  return h("section", { class: "card", hidden: text ? null : "" }, h("h2", {}, title), h("pre", { id: name, tabindex: 0, class: "wrap" }, plain(text || "")));
}

function environment(provenance) {
  if (!provenance) return null;
  if (provenance.problem) return h("p", { class: "soft small" }, `With what it was made is not known: ${provenance.problem}`);
  const found = provenance.environment;
  if (!found) return null;
  const packages = found.packages && typeof found.packages === "object" ? Object.entries(found.packages) : [];
  return h("details", { class: "card" }, h("summary", {}, "Environment of the client"), facts(
    Object.entries(found).filter(([name]) => name !== "packages").map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)])),
  packages.length ? h("p", { class: "small" }, h("b", {}, `${number(packages.length)} packages: `), packages.map(([name, version]) => `${name} ${version}`).join(", ")) : null);
}

function hostOf(record) {
  const host = [...(record.attempts || [])].reverse().find((a) => a.host)?.host;
  return host ? ` on ${host}` : "";
}

const links = (ids) => ids.slice(0, 20).flatMap((id, i) => [i ? ", " : "", taskLink(id)]).concat(ids.length > 20 ? ` and ${ids.length - 20} more` : []);
const facts = (pairs) => h("dl", {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false)
  .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
const plain = (text) => String(text).replace(/\x1b\[[0-9;]*[A-Za-z]/g, "");

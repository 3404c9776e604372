// The frame: pages by the address after "#", the stream of news, the theme.

import { ask, h, setActionKey } from "./dom.js";
import { database } from "./database.js";
import { engines } from "./engines.js";
import { graph } from "./graph.js";
import { overview } from "./overview.js";
import { stream } from "./stream.js";
import { tasks } from "./tasks.js";
import { task } from "./task.js";

const PAGES = [
  ["", "Overview", overview],
  ["tasks", "Tasks", tasks],
  ["stream", "Task stream", stream],
  ["graph", "Graph", graph],
  ["engines", "Engines", engines],
  ["database", "Database", database],
];
const HIDDEN = { task };
const SILENT_SECONDS = 8;

const main = document.getElementById("main"), nav = document.getElementById("nav");
const statusPlace = document.getElementById("status"), banner = document.getElementById("banner");

/** What pages know: about (name, read_only, …), the last news, and a way to hear more. */
export const app = {
  about: { name: "", read_only: true },
  news: null,
  listeners: new Set(),
  onNews(listener) {
    this.listeners.add(listener);
    if (this.news) listener(this.news);
    return () => this.listeners.delete(listener);
  },
};

function address() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  return { name, argument: rest.map(decodeURIComponent).join("/"), params: new URLSearchParams(query || "") };
}

let leave = null, shown = null;

function open() {
  const { name, argument, params } = address();
  const page = PAGES.find(([path]) => path === name)?.[2] || HIDDEN[name] || overview;
  const known = PAGES.find(([path]) => path === name);
  nav.replaceChildren(...PAGES.map(([path, title]) =>
    h("a", { href: `#/${path}`, "aria-current": path === name || (name === "task" && path === "tasks") ? "page" : null }, title)));
  const key = `${name}/${argument}`;
  if (leave?.update && shown === key && leave.update(params)) return;
  leave?.();
  shown = key;
  main.replaceChildren();
  document.title = `${known ? known[1] : "Task"} · ${app.about.name || "Engineroom"}`;
  leave = page(main, params, app, argument) || (() => {});
}

function showStatus(kind, text) {
  statusPlace.replaceChildren(h("span", { class: `dot ${kind}` }), h("span", { title: text }, text));
}

let heard = performance.now(), pause = 0;

/** Say so if the cluster has not answered for a while: a controller that hangs is given up only later. */
setInterval(() => {
  const silent = Math.round((performance.now() - heard) / 1000);
  const usual = Math.max(SILENT_SECONDS, (3 * pause) / 1000); // looks that take long come less often
  if (app.news && banner.hidden && silent >= usual) showStatus("lost", `no answer for ${silent} s`);
}, 1000);

function listen() {
  const source = new EventSource("api/events");
  source.addEventListener("overview", (event) => {
    pause = performance.now() - heard;
    heard += pause;
    app.news = JSON.parse(event.data);
    const { live, problem, origin } = app.news;
    banner.hidden = !problem;
    banner.textContent = problem ? `The records cannot be read: ${problem}` : "";
    showStatus(problem ? "lost" : live ? "live" : "", live ? "live" : problem ? "no records" : "no cluster is running");
    statusPlace.title = origin;
    for (const listener of [...app.listeners]) listener(app.news);
  });
  source.addEventListener("error", () => {
    banner.hidden = false;
    banner.textContent = source.readyState === EventSource.CLOSED
      ? "The dashboard has ended, or does not know this browser any more. Open it again with its link."
      : "The dashboard does not answer. It is asked again …";
    showStatus("lost", "no connection");
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  });
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  window.dispatchEvent(new Event("theme"));
}

document.getElementById("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  localStorage.setItem("engineroom-theme", dark ? "light" : "dark");
  setTheme(dark ? "light" : "dark");
});
setTheme(localStorage.getItem("engineroom-theme"));
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });

try {
  app.about = await ask("about");
  setActionKey(app.about.action_key);
} catch (error) {
  banner.hidden = false;
  banner.textContent = error.message;
}
window.addEventListener("hashchange", open);
open();
listen();

// Elements, texts and requests. Every text from outside becomes a text node: no HTML is ever parsed from it.

/** An element: h("a", {href: "#/", class: "x", onclick: f}, "text", child, [more]). null and false are left out. */
export function h(tag, props, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "width%") made.style.width = `${value}%`;
    else if (name === "background") made.style.background = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return made;
}

/** Make `old` look like `now`, changing only what differs: focus, selection and scrolling stay. */
export function morph(old, now) {
  if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName) return old.replaceWith(now);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== now.data) old.data = now.data;
    return;
  }
  if (old.dataset?.keep !== undefined) return;
  for (const { name } of [...old.attributes]) if (name !== "style" && !now.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of now.attributes)
    if (name !== "style" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  // As an attribute, a style is refused by the content security policy; as a property it is not.
  if (old.style.cssText !== now.style.cssText) old.style.cssText = now.style.cssText;
  const before = [...old.childNodes], after = [...now.childNodes];
  after.forEach((child, i) => (i < before.length ? morph(before[i], child) : old.append(child)));
  before.slice(after.length).forEach((child) => child.remove());
}

/** Show these children in a place, changing only what differs. */
export function show(place, ...children) {
  morph(place, h(place.tagName, Object.fromEntries([...place.attributes].filter((a) => a.name !== "style").map((a) => [a.name, a.value])), ...children));
}

let actionKey = "";
export function setActionKey(key) { actionKey = key; }

/** Ask the dashboard for JSON. Throws an Error with the server's sentence. */
export async function ask(path, params, signal) {
  const query = params ? "?" + new URLSearchParams(params) : "";
  return read(await fetch("api/" + path + query, { signal, credentials: "same-origin" }));
}

/** Have the dashboard do something. */
export async function act(path, body) {
  return read(await fetch("api/" + path, {
    method: "POST", credentials: "same-origin", body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "X-Engineroom-Key": actionKey },
  }));
}

async function read(response) {
  if (response.status === 401) throw new Error("This page is not allowed any more: open the dashboard with its link.");
  const found = await response.json().catch(() => ({ error: `the dashboard answered with status ${response.status}` }));
  if (!response.ok) throw Object.assign(new Error(found.error), { status: response.status });
  return found;
}

// ------------------------------------------------------------------------------------------------ texts

const whole = new Intl.NumberFormat("en");

export const number = (n) => (n === null || n === undefined ? "" : whole.format(Math.round(n)));

export function rate(n) {
  if (n === null || n === undefined) return "–";
  return (n >= 10 || n === 0 ? number(n) : n.toFixed(1)) + "/s";
}

export function bytes(n) {
  if (n === null || n === undefined) return "";
  for (const [size, name] of [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]])
    if (n >= size) return `${n / size >= 100 ? number(n / size) : (n / size).toFixed(1)} ${name}`;
  return `${n} B`;
}

export function duration(s) {
  if (s === null || s === undefined) return "";
  if (s < 0) return "-" + duration(-s);
  if (s < 0.001) return `${(s * 1e6).toFixed(0)} µs`;
  if (s < 1) return `${(s * 1e3).toFixed(s < 0.1 ? 1 : 0)} ms`;
  if (s < 60) return `${s.toFixed(s < 10 ? 2 : 1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${String(Math.floor(s % 60)).padStart(2, "0")} s`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} min`;
  return `${(s / 86400).toFixed(1)} days`;
}

const two = (n) => String(n).padStart(2, "0");

/** Local time: "14:03:07" today, else with the day. `exact`: always with the day and milliseconds. */
export function time(value, exact) {
  if (value === null || value === undefined) return "";
  const t = typeof value === "number" ? new Date(value * 1000) : new Date(value);
  const day = `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())}`;
  const clock = `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
  if (exact) return `${day} ${clock}.${String(t.getMilliseconds()).padStart(3, "0")}`;
  return t.toDateString() === new Date().toDateString() ? clock : `${day} ${clock}`;
}

export const seconds = (iso) => new Date(iso).getTime() / 1000;

/** A msg_id that fits into a table. */
export function shortId(id) {
  const cut = id.lastIndexOf("-");
  return cut > 8 ? `${id.slice(0, 6)}${id.slice(cut)}` : id;
}

export const stateOf = (state) => h("span", { class: `state ${state}` }, state || "unknown");
/** What an engine runs, and for how long; or that nothing is heard of it. */
export function runs(engine) {
  if (engine.silent !== null) return h("strong", {}, "silent: gets no more tasks");
  if (!engine.running) return "";
  const { label, code, function: name, msg_id } = engine.running, what = code ? code.trim().split("\n")[0] : name || "";
  return [label ? `${label}: ` : "", what ? `${what} ` : "", taskLink(msg_id)];
}
export const runsFor = (engine, now) => engine.silent !== null ? duration(engine.silent)
  : engine.running ? duration(Math.max(0, now - engine.running.started)) : "";
export const taskLink = (id, text) => h("a", { href: `#/task/${encodeURIComponent(id)}`, class: "mono nowrap", title: id }, text || shortId(id));
export const queryLink = (query, text) =>
  h("a", { href: "#/tasks?" + new URLSearchParams({ query: typeof query === "string" ? query : JSON.stringify(query) }) }, text);

/** A table. Columns: {name, right, cell: row => child, nowrap}. */
export function table(columns, rows, empty) {
  if (!rows.length) return h("p", { class: "soft" }, empty || "nothing");
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, columns.map((c) => h("th", { scope: "col", class: c.right && "right" }, c.name)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, columns.map((c) =>
      h("td", { class: [c.right && "right nowrap", c.nowrap && "nowrap"].filter(Boolean).join(" ") || null }, c.cell(row))))))));
}

export function debounce(f, wait) {
  let timer;
  return (...args) => { clearTimeout(timer); timer = setTimeout(() => f(...args), wait); };
}

/** The value of a colour of the theme. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Colours that can be told apart on both backgrounds, one for each name; the same name has the same colour. */
export function colourOf(name, names) {
  const dark = colour("color-scheme") === "dark" || getComputedStyle(document.documentElement).colorScheme === "dark";
  const hues = [214, 28, 145, 330, 48, 180, 265, 5, 95, 300, 240, 70];
  const place = names.indexOf(name);
  if (place < 0) return colour("--aborted");
  return `hsl(${hues[place % hues.length]} ${dark ? 60 : 62}% ${dark ? 60 : 45}%)`;
}

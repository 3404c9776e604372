// The side panel: a form that starts a cluster, and a card for each cluster. It looks again every few seconds while it is
// shown; cards are changed in place, so that the keyboard's focus and half-typed numbers stay.

import { Dialog, showDialog } from "@jupyterlab/apputils";
import { Widget } from "@lumino/widgets";
import { PAGES } from "./dashboard";
import { Cluster, list, scale, start, stop } from "./server";

const LOOK_MS = 2000;

/** What the panel cannot do itself. */
export interface Deeds {
  openDashboard(key: string, page: string): void;
  /** Put code into the notebook; returns what is missing for that, or "". */
  insertCode(code: string): string;
}

type Child = Node | string;
type Deed = () => Promise<unknown>;

function h<K extends keyof HTMLElementTagNameMap>(
  tag: K, attributes: Record<string, string> = {}, ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function button(text: string, title: string, click: () => void, more = ""): HTMLButtonElement {
  const made = h("button", { type: "button", class: `jp-mod-styled er-button ${more}`, title }, text);
  made.addEventListener("click", click);
  return made;
}

const count = (n: number, what: string): string => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

export class ClustersPanel extends Widget {
  private cards = new Map<string, Card>();
  private problem = h("div", { class: "er-problem", role: "alert" });
  private said = h("div", { class: "er-said", role: "status" });
  private none = h("p", { class: "er-hint" });
  private items = h("ul", { class: "er-clusters", "aria-label": "Clusters" });
  private profiles = h("datalist", { id: "er-profiles" });
  /** whether the server did not answer at the last look */
  private isSilent = false;
  private timer = 0;
  private looking: Promise<void> | null = null;

  constructor(private deeds: Deeds) {
    super();
    this.id = "engineroom-clusters";
    this.addClass("er-panel");
    this.node.setAttribute("role", "region");
    this.node.setAttribute("aria-label", "Clusters of Engineroom");
    this.node.append(h("h2", {}, "Clusters"), this.form(), this.problem, this.said, this.none, this.items);
  }

  protected onAfterShow(): void {
    void this.look();
  }

  protected onAfterHide(): void {
    window.clearTimeout(this.timer);
  }

  dispose(): void {
    window.clearTimeout(this.timer);
    super.dispose();
  }

  /** Ask for all clusters and show them; again after a while. */
  private async look(): Promise<void> {
    window.clearTimeout(this.timer);
    this.looking ??= this.lookOnce().finally(() => (this.looking = null));
    await this.looking;
    window.clearTimeout(this.timer);
    if (this.isVisible && !this.isDisposed) this.timer = window.setTimeout(() => void this.look(), LOOK_MS);
  }

  private async lookOnce(): Promise<void> {
    let found;
    try {
      found = await list();
    } catch (error) {
      setText(this.problem, (error as Error).message);
      this.isSilent = true;
      return;
    }
    if (this.isSilent) setText(this.problem, "");
    this.isSilent = false;
    this.profiles.replaceChildren(...found.profiles.map((name) => h("option", { value: name })));
    const keys = new Set(found.clusters.map(({ key }) => key));
    for (const [key, card] of this.cards) {
      if (keys.has(key)) continue;
      if (card.node.contains(document.activeElement)) this.node.querySelector("input")?.focus();
      card.node.remove();
      this.cards.delete(key);
    }
    found.clusters.forEach((cluster, place) => {
      const card = this.cards.get(cluster.key) ?? new Card(cluster, this.deeds, (...told) => this.act(...told));
      this.cards.set(cluster.key, card);
      card.update(cluster);
      if (this.items.children[place] !== card.node) this.items.insertBefore(card.node, this.items.children[place] ?? null);
    });
    setText(this.none, keys.size === 0 ? "No cluster is running." : "");
  }

  /** Do something: say so, look at once, and say how it went. Resolves to whether it went well. */
  private async act(deed: Deed, doing: string, done = ""): Promise<boolean> {
    setText(this.said, doing);
    setText(this.problem, "");
    let problem = "";
    await deed().catch((error: Error) => (problem = error.message));
    await this.look();
    setText(this.said, problem ? "" : done);
    if (problem) setText(this.problem, problem);
    return !problem;
  }

  private form(): HTMLElement {
    const profile = h("input", { name: "profile", value: "default", list: "er-profiles", required: "", autocomplete: "off" });
    const n = h("input", { name: "n", type: "number", min: "0", max: "10000", placeholder: "auto" });
    const id = h("input", { name: "id", pattern: "[\\w.\\-]*", placeholder: "a new one", autocomplete: "off" });
    const keep = h("input", { name: "keep", type: "checkbox" });
    const submit = h("button", { class: "jp-mod-styled jp-mod-accept er-button" }, "Start");
    for (const input of [profile, n, id]) input.classList.add("jp-mod-styled");
    n.title = "Empty: as many as the profile's configuration says, else one for each core";
    keep.title = "Else it is stopped when the Jupyter server ends";
    const form = h(
      "form", { class: "er-start", "aria-label": "Start a cluster" },
      h("label", {}, h("span", {}, "Profile"), profile), h("label", {}, h("span", {}, "Engines"), n),
      h("label", {}, h("span", {}, "Cluster id"), id),
      h("label", { class: "er-keep" }, keep, "Goes on when Jupyter ends"), submit, this.profiles,
    );
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const wish = { profile: profile.value, n: n.value === "" ? null : Number(n.value), cluster_id: id.value, keep: keep.checked };
      submit.disabled = true;
      const done = await this.act(() => start(wish), `Starting a cluster of profile ${wish.profile} …`);
      submit.disabled = false;
      if (done) id.value = "";
    });
    return form;
  }
}

/** Changes a text only if it is another one: screen readers read out each change. */
function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** One cluster. */
class Card {
  readonly node: HTMLLIElement;
  private state = h("span", { class: "er-state" });
  private problem = h("p", { class: "er-problem", role: "alert" });
  private hint = h("p", { class: "er-hint" });
  private number = h("input", { type: "number", min: "0", max: "10000", required: "", class: "jp-mod-styled" });
  private actions: HTMLElement;
  private end: HTMLButtonElement;

  constructor(
    private cluster: Cluster,
    private deeds: Deeds,
    private act: (deed: Deed, doing: string, done?: string) => Promise<boolean>,
  ) {
    const { key, profile, cluster_id } = cluster;
    const name = cluster_id || "(no id)";
    this.number.setAttribute("aria-label", `Number of engines of ${key}`);
    const growing = h("form", { class: "er-scale" }, this.number, h("button", { class: "jp-mod-styled er-button" }, "Scale"));
    growing.addEventListener("submit", (event) => {
      event.preventDefault();
      const n = Number(this.number.value);
      this.number.dataset.typed = "";
      void this.act(() => scale(key, n), `Scaling ${key} to ${count(n, "engine")} …`);
    });
    this.number.addEventListener("input", () => (this.number.dataset.typed = "yes"));
    const pages = Object.entries(PAGES).map(([page, title]) =>
      button(title, `The dashboard of ${key}: ${title}`, () => deeds.openDashboard(key, page), "er-page"));
    this.actions = h(
      "div", { class: "er-actions" }, growing,
      button("Insert code", "Insert code that connects to this cluster into the notebook", () => this.insert()),
      h("div", { class: "er-pages", role: "group", "aria-label": `Dashboard of ${key}` }, h("span", {}, "Dashboard"), ...pages),
    );
    this.end = button("", "", () => void this.askAndStop(), "er-end");
    this.node = h(
      "li", { class: "er-cluster", "aria-label": `Cluster ${key}` },
      h("div", { class: "er-head" }, h("strong", {}, name), h("span", { class: "er-profile" }, profile), this.end),
      this.state, this.problem, this.actions, this.hint,
    );
  }

  update(cluster: Cluster): void {
    this.cluster = cluster;
    const { state, engines, wanted, tasks, key } = cluster;
    this.node.dataset.state = state;
    const parts: string[] = [state];
    if (wanted !== null) parts.push(`${engines ?? 0} of ${count(wanted, "engine")}`);
    else if (engines !== null) parts.push(count(engines, "engine"));
    if (tasks) parts.push(`${count(tasks, "task")} not finished`);
    setText(this.state, parts.join(" · "));
    setText(this.problem, cluster.problem);
    setText(this.hint, cluster.ends_with_jupyter ? "It is stopped when the Jupyter server ends." : "");
    this.actions.hidden = state !== "running" && !(state === "starting" && engines !== null);
    const untouched = this.number.dataset.typed !== "yes" && document.activeElement !== this.number;
    if (untouched && (wanted ?? engines) !== null) this.number.value = String(wanted ?? engines);
    const word = state === "failed" ? "Forget" : state === "killed" ? "Clean up" : "Stop";
    setText(this.end, word);
    this.end.setAttribute("aria-label", `${word} ${key}`);
    this.end.title = state === "killed" ? "Remove the files that it left; its records stay" : `${word} this cluster`;
    this.end.disabled = state === "stopping" || state === "elsewhere";
  }

  private insert(): void {
    const missing = this.deeds.insertCode(this.cluster.code);
    void this.act(async () => {
      if (missing) throw new Error(missing);
    }, "", "The code is in the notebook.");
  }

  /** Stop the cluster; one that runs only after a question. */
  private async askAndStop(): Promise<void> {
    const { key, state, tasks } = this.cluster;
    if (state === "running" || state === "starting") {
      const lost = tasks ? `${count(tasks, "task")} have not finished: they are aborted. ` : "";
      const answer = await showDialog({
        title: `Stop the cluster ${key}?`,
        body: `${lost}Its engines end, and with them what is in their memory. The records stay.`,
        buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: "Stop" })],
        defaultButton: 0,
      });
      if (!answer.button.accept) return;
    }
    await this.act(() => stop(key), `Stopping ${key} …`, state === "running" ? `${key} has been stopped.` : "");
  }
}

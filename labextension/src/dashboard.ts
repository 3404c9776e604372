// A page of a cluster's dashboard, as a tab of the main area.

import { Widget } from "@lumino/widgets";
import { dashboard } from "./server";

/** The pages, by their names in the dashboard's addresses. */
export const PAGES: Record<string, string> = {
  "": "Overview",
  tasks: "Tasks",
  stream: "Task stream",
  graph: "Graph",
  engines: "Engines",
  database: "Database",
};

export class Dashboard extends Widget {
  private frame = document.createElement("iframe");
  private themes = new MutationObserver(() => this.followTheme());

  constructor(readonly key: string, readonly page: string) {
    super();
    this.addClass("jp-IFrame"); // JupyterLab lets tabs be dragged over elements of this class
    this.addClass("er-dashboard");
    this.frame.title = `Dashboard of ${key}: ${PAGES[page]}`;
    this.frame.src = dashboard(key, page);
    this.frame.addEventListener("load", () => this.followTheme());
    this.node.append(this.frame);
    this.themes.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  }

  dispose(): void {
    this.themes.disconnect();
    super.dispose();
  }

  /** Show the dashboard in JupyterLab's theme. */
  private followTheme(): void {
    const inside = this.frame.contentWindow;
    if (!inside) return;
    inside.document.documentElement.dataset.theme = document.body.dataset.jpThemeLight === "false" ? "dark" : "light";
    inside.dispatchEvent(new Event("theme"));
  }
}

// The plugin: puts the panel into the left side bar, opens dashboards as tabs, and inserts code into notebooks.

import { ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, MainAreaWidget, WidgetTracker } from "@jupyterlab/apputils";
import { INotebookTracker, NotebookActions } from "@jupyterlab/notebook";
import { LabIcon } from "@jupyterlab/ui-components";
import { Dashboard, PAGES } from "./dashboard";
import { ClustersPanel } from "./panel";

const OPEN = "engineroom:open-dashboard";
const SHOW = "engineroom:show-clusters";

const icon = new LabIcon({
  name: "engineroom:clusters",
  svgstr:
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><g class="jp-icon3" fill="#616161">' +
    '<path d="M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4z"/><path d="M13 13h7v7h-7zm2 2v3h3v-3z" fill-rule="evenodd"/></g></svg>',
});

function activate(
  app: JupyterFrontEnd, notebooks: INotebookTracker | null, restorer: ILayoutRestorer | null, palette: ICommandPalette | null,
): void {
  const tabs = new WidgetTracker<MainAreaWidget<Dashboard>>({ namespace: "engineroom-dashboards" });
  const idOf = (key: string, page: string) => `engineroom-dashboard-${key}-${page}`;

  function open(key: string, page: string): void {
    let tab = tabs.find(({ id }) => id === idOf(key, page));
    if (!tab) {
      tab = new MainAreaWidget({ content: new Dashboard(key, page) });
      tab.id = idOf(key, page);
      tab.title.label = `${PAGES[page]} · ${key.replace(/^default:/, "")}`;
      tab.title.caption = `Dashboard of the cluster ${key}`;
      tab.title.icon = icon;
      tab.title.closable = true;
      void tabs.add(tab);
      app.shell.add(tab, "main");
    }
    app.shell.activateById(tab.id);
  }

  function insertCode(code: string): string {
    const panel = notebooks?.currentWidget;
    if (!panel) return "Open a notebook first: the code is inserted into the active one.";
    const empty = panel.content.activeCell?.model;
    if (empty?.type !== "code" || empty.sharedModel.getSource().trim() !== "") NotebookActions.insertBelow(panel.content);
    panel.content.activeCell?.model.sharedModel.setSource(code);
    app.shell.activateById(panel.id);
    return "";
  }

  const panel = new ClustersPanel({ openDashboard: (key, page) => void app.commands.execute(OPEN, { key, page }), insertCode });
  panel.title.icon = icon;
  panel.title.caption = "Clusters of Engineroom";
  app.shell.add(panel, "left", { rank: 600 });

  app.commands.addCommand(OPEN, { label: "Open a Dashboard", execute: ({ key, page }) => open(key, page) });
  app.commands.addCommand(SHOW, { label: "Show Clusters", execute: () => app.shell.activateById(panel.id) });
  palette?.addItem({ command: SHOW, category: "Engineroom" });
  restorer?.add(panel, panel.id);
  void restorer?.restore(tabs, {
    command: OPEN,
    args: ({ content }) => ({ key: content.key, page: content.page }),
    name: ({ content }) => `${content.key}-${content.page}`,
  });
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: "engineroom:plugin",
  description: "Clusters of Engineroom: a side panel, and dashboards as tabs.",
  autoStart: true,
  optional: [INotebookTracker, ILayoutRestorer, ICommandPalette],
  activate,
};

export default plugin;

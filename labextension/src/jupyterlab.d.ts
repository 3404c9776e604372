// What the panel uses of JupyterLab, and nothing else. JupyterLab's own packages have these types, too, but bring 280
// packages of 330 MB into each build; they are not bundled in any case. tests/notebook/test_lab_panel.py uses all of this.

declare module "@lumino/widgets" {
  export class Widget {
    constructor(options?: { node?: HTMLElement });
    readonly node: HTMLElement;
    readonly isDisposed: boolean;
    readonly isVisible: boolean;
    readonly title: { label: string; caption: string; icon: unknown; closable: boolean };
    id: string;
    addClass(name: string): void;
    dispose(): void;
    show(): void; // these and the next are here so that no class below takes their names for something else
    hide(): void;
    update(): void;
    close(): void;
    activate(): void;
    protected onAfterShow(message: unknown): void;
    protected onAfterHide(message: unknown): void;
  }
}

declare module "@jupyterlab/application" {
  import type { Widget } from "@lumino/widgets";
  import type { WidgetTracker } from "@jupyterlab/apputils";
  export interface JupyterFrontEnd {
    readonly commands: {
      addCommand(id: string, options: { label: string; execute: (args: Record<string, string>) => unknown }): unknown;
      execute(id: string, args?: Record<string, string>): Promise<unknown>;
    };
    readonly shell: {
      add(widget: Widget, area: "left" | "main", options?: { rank: number }): void;
      activateById(id: string): void;
    };
  }
  export interface JupyterFrontEndPlugin<T> {
    id: string;
    description: string;
    autoStart: boolean;
    requires?: unknown[];
    optional?: unknown[];
    activate: (app: JupyterFrontEnd, ...services: any[]) => T;
  }
  export interface ILayoutRestorer {
    add(widget: Widget, name: string): void;
    restore<W extends Widget>(
      tracker: WidgetTracker<W>,
      options: { command: string; args: (widget: W) => Record<string, string>; name: (widget: W) => string },
    ): Promise<unknown>;
  }
  export const ILayoutRestorer: unknown;
}

declare module "@jupyterlab/apputils" {
  import type { Widget } from "@lumino/widgets";
  export class MainAreaWidget<T extends Widget> extends Widget {
    constructor(options: { content: T });
    readonly content: T;
  }
  export class WidgetTracker<W extends Widget> {
    constructor(options: { namespace: string });
    add(widget: W): Promise<void>;
    find(test: (widget: W) => boolean): W | undefined;
  }
  export interface ICommandPalette {
    addItem(item: { command: string; category: string }): unknown;
  }
  export const ICommandPalette: unknown;
  export const Dialog: {
    cancelButton(options?: { label: string }): unknown;
    warnButton(options: { label: string }): unknown;
  };
  export function showDialog(options: {
    title: string; body: string; buttons: unknown[]; defaultButton: number;
  }): Promise<{ button: { accept: boolean } }>;
}

declare module "@jupyterlab/coreutils" {
  export const URLExt: { join(...parts: string[]): string };
}

declare module "@jupyterlab/notebook" {
  interface Cell { readonly model: { readonly type: string; readonly sharedModel: { getSource(): string; setSource(text: string): void } } }
  interface Notebook { readonly activeCell: Cell | null }
  export interface INotebookTracker { readonly currentWidget: { readonly id: string; readonly content: Notebook } | null }
  export const INotebookTracker: unknown;
  export const NotebookActions: { insertBelow(notebook: Notebook): void };
}

declare module "@jupyterlab/services" {
  export namespace ServerConnection {
    function makeSettings(): { readonly baseUrl: string };
    function makeRequest(url: string, init: RequestInit, settings: { readonly baseUrl: string }): Promise<Response>;
  }
}

declare module "@jupyterlab/ui-components" {
  export class LabIcon {
    constructor(options: { name: string; svgstr: string });
  }
}

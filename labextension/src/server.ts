// What the panel asks of the Jupyter server: src/engineroom/lab/handlers.py answers.

import { URLExt } from "@jupyterlab/coreutils";
import { ServerConnection } from "@jupyterlab/services";

/** One cluster: `Shown` in src/engineroom/lab/clusters.py says what each field means. */
export interface Cluster {
  key: string;
  profile: string;
  cluster_id: string;
  state: "starting" | "running" | "stopping" | "failed" | "killed" | "elsewhere";
  engines: number | null;
  wanted: number | null;
  tasks: number | null;
  problem: string;
  code: string;
  ends_with_jupyter: boolean;
}

export interface Listed {
  clusters: Cluster[];
  profiles: string[];
}

/** What the form says; n = null: as many engines as the profile's configuration says, else one for each core. */
export interface Wish {
  profile: string;
  n: number | null;
  cluster_id: string;
  keep: boolean;
}

const NOT_THERE =
  "The Jupyter server has no extension of Engineroom. In its environment, run " +
  "`jupyter server extension enable engineroom.lab`, and start it again.";

function address(key: string, ...more: string[]): string {
  const { baseUrl } = ServerConnection.makeSettings();
  return URLExt.join(baseUrl, "engineroom", "clusters", ...(key ? [encodeURIComponent(key)] : []), ...more);
}

async function ask(method: string, url: string, body?: unknown): Promise<any> {
  const init: RequestInit = { method, body: body === undefined ? undefined : JSON.stringify(body) };
  let answer: Response;
  try {
    answer = await ServerConnection.makeRequest(url, init, ServerConnection.makeSettings());
  } catch {
    throw new Error("The Jupyter server does not answer. It is asked again …");
  }
  const found = await answer.json().catch(() => ({}));
  if (answer.ok) return found;
  throw new Error(found.message && found.message !== "Not Found" ? found.message : answer.status === 404 ? NOT_THERE : answer.statusText);
}

/** All clusters. The question does not count as activity: a panel that is open keeps no idle server alive. */
export const list = (): Promise<Listed> => ask("GET", address("") + "?no_track_activity=1");

/** Begin to start a cluster; `list` tells how that goes. */
export const start = (wish: Wish): Promise<{ key: string }> => ask("POST", address(""), wish);

export const scale = (key: string, n: number): Promise<unknown> => ask("PATCH", address(key), { n });

/** Stop a cluster; forget one that could not start; remove the files of one that was killed. */
export const stop = (key: string): Promise<unknown> => ask("DELETE", address(key));

/** The address of a page of a cluster's dashboard. */
export const dashboard = (key: string, page: string): string => `${address(key, "dashboard")}/#/${page}`;

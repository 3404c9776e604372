// Runs a browser for tests: each line of stdin is a JSON object with JavaScript (`code`) that has `page`, `context` and
// `open` (a fresh context and page); each line of stdout is its answer.

const readline = require("node:readline");
const { chromium } = require(process.argv[2]);

const ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"];
const AsyncFunction = (async () => {}).constructor;

(async () => {
  const browser = await chromium.launch({ executablePath: process.argv[3], args: ARGS });
  const found = { browser, context: null, page: null, messages: [], requests: [] };
  found.open = async (options) => {
    await found.context?.close();
    found.context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
    found.page = await found.context.newPage();
    found.messages = [];
    found.requests = [];
    found.page.on("console", (message) => found.messages.push(`${message.type()}: ${message.text()}`));
    found.page.on("pageerror", (error) => found.messages.push(`error: ${error.message}`));
    found.page.on("dialog", (dialog) => { found.messages.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    found.page.on("request", (request) => found.requests.push(request.url()));
    found.page.setDefaultTimeout(60000);
    return found.page;
  };
  console.log(JSON.stringify({ value: browser.version() }));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { code, given } = JSON.parse(line);
    try {
      const run = new AsyncFunction("found", "given", `const { open, context, page } = found; { ${code} }`);
      const value = await run(found, given);
      console.log(JSON.stringify({ value: value === undefined ? null : value }));
    } catch (error) {
      console.log(JSON.stringify({ error: String(error.stack || error) }));
    }
  }
  await browser.close();
})().catch((error) => { console.log(JSON.stringify({ error: String(error.stack || error) })); process.exit(1); });

// Drives JupyterLab in a headless Chromium. Reads commands from stdin, a JSON object each line, and answers each with a
// line: {"value": ...} or {"error": text}. `PLAYWRIGHT` and `CHROMIUM` in the environment say where both are.
const { chromium } = require(process.env.PLAYWRIGHT);
const readline = require('readline');

const ARGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'];
const WAIT = { timeout: 45000 };
let browser, page;

const cell = number => page.locator('.jp-Notebook .jp-Cell').nth(number);

const commands = {
  async open({ url }) {
    if (page) await page.close();
    page = await browser.newPage({ viewport: { width: 1100, height: 1500 } });
    await page.goto(url, WAIT);
    await page.waitForSelector('.jp-Notebook .cm-content', WAIT);
    await page.waitForSelector('.jp-Notebook-ExecutionIndicator[data-status=idle]', WAIT);
  },
  async begin({ number }) {
    // Until the kernel is connected, the page forgets what is to run: then once more.
    for (let tries = 0; tries < 20; tries++) {
      await cell(number).locator('.cm-content').click();
      await page.keyboard.press('Shift+Enter');
      const prompt = cell(number).locator('.jp-InputPrompt', { hasText: /\[(\*|\d+)\]/ });
      if (await prompt.waitFor({ timeout: 2000 }).then(() => true, () => false)) return;
    }
    throw new Error(`cell ${number} does not run`);
  },
  async end({ number }) {
    await page.waitForFunction(n => {
      const found = document.querySelectorAll('.jp-Notebook .jp-Cell')[n];
      return /\[\d+\]/.test(found.querySelector('.jp-InputPrompt').textContent);
    }, number, WAIT);
    await page.waitForTimeout(100);  // outputs are drawn in the next frames
  },
  async html({ number }) {
    return await cell(number).locator('.jp-OutputArea').first().innerHTML();
  },
  async text({ number }) {
    return await cell(number).locator('.jp-OutputArea').first().innerText();
  },
  async count({ number, selector }) {
    return await cell(number).locator(selector).count();
  },
  async visible({ number, selector }) {
    await cell(number).locator(selector).first().waitFor({ state: 'visible', ...WAIT });
  },
  async isVisible({ number, selector }) {
    return await cell(number).locator(selector).first().isVisible();
  },
  async click({ number, selector }) {
    await cell(number).locator(selector).first().click();
  },
  async interrupt() {
    await page.click('[data-command="notebook:interrupt-kernel"]');
  },
  async screenshot({ path }) {
    await page.screenshot({ path });
  },
};

(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ARGS });
  process.stdout.write(JSON.stringify({ value: 'ready' }) + '\n');
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let answer;
    try {
      const { command, ...given } = JSON.parse(line);
      answer = { value: (await commands[command](given)) ?? null };
    } catch (error) {
      answer = { error: String(error) };
    }
    process.stdout.write(JSON.stringify(answer) + '\n');
  }
  await browser.close();
})().catch(error => { process.stdout.write(JSON.stringify({ error: String(error) }) + '\n'); process.exit(1); });

/**
 * Opens the page in Chromium, prints what it shows: node browse.mjs ADDRESS '{"text": …}' [OPTION=VALUE …].
 * Options: offline (loads anew without a network), screenshot (a file), scheme (dark), width (pixels).
 */
import { chromium } from "playwright-core";

const [address, typed, ...rest] = process.argv.slice(2);
const options = Object.fromEntries(rest.map((option) => option.split("=")));

// A container's root has no sandbox of its own; the page comes from this machine.
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const context = await browser.newContext({
  viewport: { width: Number(options.width ?? 720), height: 800 },
  colorScheme: options.scheme ?? "light",
});
const page = await context.newPage();
const [messages, asked] = [[], []];
page.on("console", (message) => messages.push(message.text()));
page.on("pageerror", (error) => messages.push(error.message));
page.on("request", (request) => asked.push(new URL(request.url()).host));

await page.goto(address);
await settled();
if (options.offline) {
  await context.setOffline(true);
  await page.reload();
  await settled();
}
const form = page.locator("#form");
if (await form.isVisible()) {
  for (const [name, text] of Object.entries(JSON.parse(typed))) {
    await form.locator(`[name=${name}]`).fill(text);
  }
  await form.locator("button").click();
  await page.waitForFunction(() => document.getElementById("times").textContent.includes("answered"));
}
if (options.screenshot) await page.screenshot({ path: options.screenshot, fullPage: true });
const shown = await page.evaluate(() =>
  Object.fromEntries(
    ["name", "facts", "verdict", "problems", "label", "details", "times"].map((id) => [
      id,
      document.getElementById(id).innerText,
    ]),
  ),
);
const state = await page.locator("#golden").getAttribute("data-state");
process.stdout.write(JSON.stringify({ ...shown, state, messages, hosts: [...new Set(asked)] }));
await browser.close();

async function settled() {
  const over = '#golden[data-state="passed"], #golden[data-state="failed"]';
  await page.waitForSelector(over, { timeout: 60000 });
}

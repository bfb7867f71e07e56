/**
 * The page in a real browser: `deno run -A --no-lock bench/page.mjs URL [FOLDER]` against a running server, with Chromium at
 * CHROMIUM (default /usr/bin/chromium).
 *
 * Gives it a document with a needle, asks for it, and writes screenshots at 1280 and 390 pixels, light and dark, into FOLDER.
 * Fails on a serious violation that axe finds, and when the brightest stretch of the picture does not hold the needle.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import axe from "npm:axe-core@4.14.1";
import { chromium } from "npm:playwright-core@1.65.1";

const [url = "http://127.0.0.1:5827", folder = "."] = Deno.args;
const executablePath = Deno.env.get("CHROMIUM") ?? "/usr/bin/chromium";

const filler = (i) =>
  `Chapter ${i}. The river was slow that morning and the boats lay close to the shore, waiting for wind. ` +
  `Nobody spoke of the ${["harvest", "market", "weather", "road"][i % 4]}, and the day passed as others had. `;
const NEEDLE = "The secret code of the lighthouse is 7492.";
const document = [...Array(36).keys()].map((i) => (i === 21 ? `${NEEDLE} ` : "") + filler(i)).join("");

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
let failed = 0;
try {
  for (const [width, height] of [[1280, 800], [390, 844]]) {
    for (const colorScheme of ["light", "dark"]) {
      const page = await browser.newPage({ viewport: { width, height }, colorScheme });
      const problems = [];
      page.on("pageerror", (error) => problems.push(error.message));
      page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
      await page.goto(url);
      await page.waitForFunction(() => document.getElementById("model").textContent !== "…");
      if (width < 700) await page.locator("summary").click();
      await page.setInputFiles("#file", {
        name: "lighthouse.txt",
        mimeType: "text/plain",
        buffer: Buffer.from(document),
      });
      await page.waitForFunction(
        () => /tokens|Cannot/.test(document.getElementById("document").textContent),
        undefined,
        { timeout: 300_000 },
      );
      await page.locator("#most").fill("24");
      if (width < 700) await page.locator("summary").click();
      await page.locator("#input").fill("What is the secret code of the lighthouse?");
      await page.keyboard.press("Enter");
      await page.locator(".looked canvas").waitFor({ timeout: 300_000 });
      const brightest = await page.locator("li[data-brightest]").getAttribute("data-brightest");
      const said = await page.locator(".assistant .said").last().textContent();
      await page.evaluate(axe.source);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      const serious = violations.filter((v) => v.impact === "serious" || v.impact === "critical");
      await page.screenshot({ path: `${folder}/page-${width}-${colorScheme}.png` });
      const sides = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      // The keyboard moves over the picture.
      await page.locator(".looked canvas").focus();
      await page.keyboard.press("Home");
      const first = await page.locator(".looked blockquote").textContent();
      const isFound = /7492|secret code|lighthouse is/.test(brightest);
      console.log(
        `${width} ${colorScheme}: axe ${violations.length} violations, ${serious.length} serious; needle ${
          isFound ? "brightest" : "NOT brightest"
        }; said ${JSON.stringify(said)}`,
      );
      for (const v of violations) console.log(`  ${v.impact} ${v.id}: ${v.nodes[0]?.html.slice(0, 100)}`);
      if (!isFound) console.log(`  brightest: ${JSON.stringify(brightest)}`);
      for (const problem of problems) console.log(`  ${problem}`);
      if (serious.length > 0 || !isFound || sides > 0 || problems.length > 0 || first === brightest) failed++;
      await page.close();
    }
  }
} finally {
  await browser.close();
}
assert.equal(failed, 0);

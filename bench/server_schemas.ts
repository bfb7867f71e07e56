/**
 * Structured answers of random schemas to random prompts: `deno run -A bench/server_schemas.ts [URL] [runs]`, on a server
 * under URL, or on the tiny model without one. Throws when a finished answer is not of its schema.
 *
 * @module
 */
import { openServer } from "../test/server_fixture.ts";
import { askForSchemas } from "../test/server_schemas.ts";

const [url = "", runs = "300"] = Deno.args;
const start = performance.now();
if (url === "") {
  await using server = await openServer();
  report(await askForSchemas(server, Number(runs), { logit_bias: { "34": 5, "125": 4, "93": 4 } }));
} else {
  const headers = { "content-type": "application/json" };
  const post = (path: string, body: unknown) =>
    fetch(url + path, { method: "POST", body: JSON.stringify(body), headers });
  report(await askForSchemas({ post }, Number(runs)));
}

function report({ finished, all }: { readonly finished: number; readonly all: number }): void {
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${all} answers, ${finished} finished, all of those valid; ${seconds} s`);
}

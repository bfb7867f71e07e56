import { assertEquals } from "@std/assert";
import { Reserve } from "./reserve.ts";

Deno.test("a reserve is kept while steps run and given back once nothing has run for a while", async () => {
  const kept: number[] = [];
  const reserve = new Reserve({ keep: (bytes) => kept.push(bytes) }, 20);
  reserve.begin();
  reserve.end();
  reserve.begin();
  assertEquals(kept.length, 1, "steps that follow at once find it kept");
  await new Promise((resolve) => setTimeout(resolve, 60));
  assertEquals(kept.length, 1, "nothing goes back while steps run");
  reserve.end();
  await new Promise((resolve) => setTimeout(resolve, 60));
  assertEquals(kept.map((bytes) => bytes > 0), [true, false]);
  reserve.begin();
  reserve.release();
  reserve.release();
  assertEquals(kept.map((bytes) => bytes > 0), [true, false, true, false], "once is enough");
});

Deno.test("a backend that keeps nothing has no reserve", () => {
  const reserve = new Reserve({});
  reserve.begin();
  reserve.end();
  reserve.release();
});

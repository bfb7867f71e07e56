import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { eventBody } from "./sse.ts";

const SILENCE_MS = 50;

/** A source that says nothing until it is left. */
function silence(): { source: AsyncGenerator<string>; leave: () => Promise<void> } {
  const left = Promise.withResolvers<void>();
  const source = async function* () {
    yield "data: 1\n\n";
    await left.promise;
  }();
  return { source, leave: () => Promise.resolve(left.resolve()) };
}

describe("eventBody()", () => {
  it("pings a client that waits, and heaps up no pings for one that does not read", async () => {
    const { source, leave } = silence();
    const reader = eventBody(source, { firstMs: SILENCE_MS, everyMs: SILENCE_MS }, leave).getReader();
    const text = async () => new TextDecoder().decode((await reader.read()).value);
    assertEquals(await text(), "data: 1\n\n");
    assertEquals(await text(), ": ping\n\n");
    await new Promise((resolve) => setTimeout(resolve, 8 * SILENCE_MS));
    let waiting = 0;
    const counted = (async () => {
      while (await text() === ": ping\n\n") waiting++;
    })();
    await new Promise((resolve) => setTimeout(resolve, 0));
    assert(waiting >= 1 && waiting <= 2, `${waiting} pings waited`);
    await reader.cancel();
    await counted;
  });
});

import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { TokenEvent } from "./types.ts";
import { Outbox } from "./outbox.ts";

const timings = {
  cachedTokens: 0,
  promptTokens: 1,
  promptMs: 0,
  predictedTokens: 0,
  predictedMs: 0,
  firstTokenMs: 0,
  queueMs: 0,
  tokenizeMs: 0,
  restoreMs: 0,
};
const done: TokenEvent = { type: "done", reason: "length", timings, seed: 1 };

function token(n: number): TokenEvent {
  return { type: "token", token: n, text: "" };
}

function open(): { box: Outbox; posted: string[] } {
  const posted: string[] = [];
  const what = (e: TokenEvent) => e.type === "token" ? e.token : e.type;
  const box = new Outbox((all) => posted.push(all.map(({ id, events }) => `${id}:${events.map(what)}`).join(" ")));
  return { box, posted };
}

describe("Outbox", () => {
  it("posts first tokens and ends at once, other tokens together after a while", () => {
    const { box, posted } = open();
    for (let ms = 0; ms < 40; ms += 5) {
      box.add(7, [token(ms)]);
      box.turn(ms);
    }
    assertEquals(posted, ["7:0", "7:5,10,15,20"]);
    box.add(7, [token(99), done]);
    box.turn(36);
    assertEquals(posted.slice(2), ["7:25,30,35,99,done"]);
    // Another request of the same id is new.
    box.add(7, [token(1)]);
    box.turn(37);
    assertEquals(posted.slice(3), ["7:1"]);
  });

  it("waits longer where more are told, up to what a reader would notice", () => {
    for (const [requests, holdMs] of [[1, 16], [4, 16], [8, 32], [100, 40]] as const) {
      const { box, posted } = open();
      const all = Array.from({ length: requests }, (_, id) => id);
      for (const id of all) box.add(id, [token(0)]);
      box.turn(0);
      for (const id of all) box.add(id, [token(1)]);
      box.turn(holdMs - 1);
      assertEquals(posted.length, 1, `${requests} requests, ${holdMs - 1} ms`);
      box.turn(holdMs);
      assertEquals(posted.length, 2, `${requests} requests, ${holdMs} ms`);
    }
  });

  it("posts all requests' events in one piece, in order", () => {
    const { box, posted } = open();
    box.add(1, [{ type: "prefill", done: 1, total: 2 }]);
    box.turn(0);
    box.add(1, [token(1)]);
    box.add(2, [token(1)]);
    box.turn(1);
    box.add(1, [token(2)]);
    box.add(2, [token(2)]);
    box.turn(2);
    box.turn(3);
    box.turn(20);
    assertEquals(posted, ["1:prefill", "1:1 2:1", "1:2 2:2"]);
  });

  it("drop() and flush() leave nothing behind", () => {
    const { box, posted } = open();
    box.add(1, [token(1)]);
    box.turn(0);
    box.add(1, [token(2)]);
    box.drop(1, 1);
    box.flush(1);
    box.turn(50);
    assertEquals(posted, ["1:1", "1:2"]);
  });
});

import { assert, assertEquals, assertThrows } from "@std/assert";
import { beforeEach, describe, it } from "@std/testing/bdd";
import type { Backend } from "./backend.ts";
import type { DType, Shape, Tensor } from "../core/tensor.ts";
import { elementCount } from "../core/dtype.ts";
import { StepMemory } from "./step_memory.ts";

class Fake implements Tensor {
  declare readonly backend: Backend;
  constructor(readonly shape: Shape, readonly dtype: DType, readonly parent?: Fake) {}
}

/** Elements of memory that is live: views have none. */
function elements(made: readonly Fake[], destroyed: readonly Fake[]): number {
  return made.filter((t) => t.parent === undefined && !destroyed.includes(t))
    .reduce((sum, { shape }) => sum + elementCount(shape), 0);
}

describe("StepMemory", () => {
  let made: Fake[];
  let destroyed: Fake[];
  let stack: StepMemory<Fake>;
  const take = (...shape: number[]) =>
    stack.take(shape, "f32", (s, d) => {
      made.push(new Fake([...s], d));
      return made.at(-1) as Fake;
    });
  const view = (parent: Fake, shape: Shape, offset = 0) => stack.takeView(parent, shape, offset);

  beforeEach(() => {
    made = [];
    destroyed = [];
    const show = (parent: Fake, shape: Shape) => {
      assert(!destroyed.includes(parent));
      made.push(new Fake([...shape], parent.dtype, parent));
      return made.at(-1) as Fake;
    };
    stack = new StepMemory(show, (t) => {
      assert(!destroyed.includes(t));
      destroyed.push(t);
    });
  });

  it("hands out the same tensors when a step repeats", () => {
    const step = () => {
      const x = take(2, 3);
      const inner = stack.cursor;
      const tensors = [x];
      for (let layer = 0; layer < 3; layer++) {
        tensors.push(take(2, 4), view(x, [6]), view(x, [3], 3));
        stack.release(inner);
        tensors.push(take(2, 5), take(2, 3));
        stack.release(inner);
      }
      stack.endStep();
      return tensors;
    };
    step();
    const count = made.length;
    assertEquals(count, 7);
    const again = step();
    assertEquals(step(), again);
    assertEquals(made.length, count);
  });

  it("never hands out one tensor twice at a time", () => {
    const x = take(4);
    const y = take(4);
    assert(x !== y);
  });

  it("destroys what the last step left before it makes what this one lacks", () => {
    const big = [take(512, 8), take(512, 9)];
    stack.endStep();
    const small = take(1, 8);
    assertEquals(destroyed, big);
    assertEquals(made.at(-1), small);
  });

  it("keeps the memory of one step only, however shapes alternate", () => {
    for (let i = 0; i < 20; i++) {
      for (const n of [512, 1, 1, 7]) {
        const mark = stack.cursor;
        for (let layer = 0; layer < 4; layer++) {
          take(n, 8);
          take(n, 9);
          stack.release(mark);
          take(n, 10);
          stack.release(mark);
        }
        stack.endStep();
        assert(made.length - destroyed.length <= 3);
      }
    }
  });

  it("has memory for the largest tensor of each position, whatever shapes and types alternate there", () => {
    const ask = (n: number) => {
      const mark = stack.cursor;
      for (let layer = 0; layer < 3; layer++) {
        const q = take(n, 9, 4);
        const k = take(n, 3);
        assert(q.parent === undefined || q.parent !== k.parent);
        stack.release(mark);
        take(n, 100);
        const half = stack.take([n], "f16", (s, d) => {
          made.push(new Fake([...s], d));
          return made.at(-1) as Fake;
        });
        assertEquals(half.dtype, "f16");
        stack.release(mark);
      }
      stack.endStep();
    };
    for (const n of [512, 512, 1, 7, 512]) {
      ask(n);
      assertEquals(elements(made, destroyed), n * (100 + 3 + 1));
    }
    const count = made.length;
    ask(512);
    assertEquals(made.length, count);
  });

  it("keeps what this step used when a later request does not match", () => {
    const shared = take(3);
    take(4);
    stack.endStep();
    assert(take(3) === shared);
    take(5);
    assertEquals(destroyed.map((t) => t.shape), [[4]]);
  });

  it("destroys everything when cleared", () => {
    take(1);
    view(take(2), [1]);
    stack.clear();
    assertEquals(destroyed.length, 3);
  });

  it("refuses marks that it did not give", () => {
    take(1);
    assertThrows(() => stack.release(2), RangeError, "mark 2 is not within 0 to 1");
    assertThrows(() => stack.release(-1), RangeError);
    assertThrows(() => stack.release(NaN), RangeError);
  });
});

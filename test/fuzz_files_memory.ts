/**
 * Counts what reading a file asks for: every typed array, buffer and sized array that is constructed by length.
 *
 * @module
 */
const COUNTED = [
  "ArrayBuffer",
  "Uint8Array",
  "Int8Array",
  "Uint16Array",
  "Int16Array",
  "Uint32Array",
  "Int32Array",
  "Float32Array",
  "Float64Array",
  "BigInt64Array",
  "BigUint64Array",
  "Array",
] as const;

/** Runs `body` with counting constructors in the place of the global ones; returns the bytes asked for by length. */
export function countAllocations(body: () => void): number {
  let bytes = 0;
  const globals = globalThis as unknown as Record<string, unknown>;
  const originals = COUNTED.map((name) => globals[name]);
  COUNTED.forEach((name, i) => {
    const original = originals[i] as new (...args: unknown[]) => object;
    const each = name === "ArrayBuffer"
      ? 1
      : name === "Array"
      ? 8
      : (original as unknown as typeof Uint8Array).BYTES_PER_ELEMENT;
    globals[name] = new Proxy(original, {
      construct(target, args, newTarget) {
        if (args.length === 1 && typeof args[0] === "number") bytes += args[0] * each;
        return Reflect.construct(target, args, newTarget === globals[name] ? target : newTarget);
      },
    });
  });
  try {
    body();
  } finally {
    COUNTED.forEach((name, i) => globals[name] = originals[i]);
  }
  return bytes;
}

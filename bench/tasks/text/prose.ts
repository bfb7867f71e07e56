/**
 * Pieces that several tasks are put together from: noise, values, sentences with needles between them.
 *
 * @module
 */
import type { Random } from "../random.ts";

/** Five very short sentences, about 25 tokens, over and over. */
export const NOISE = "The hill is steep. The lake is calm. The lamp is lit. We walk on. Then we rest.";

/** 7 digits without a leading zero. */
export function number7(random: Random): string {
  return String(1_000_000 + random.below(9_000_000));
}

/** Version 4. */
export function uuid(random: Random): string {
  const hex = (digits: number) => Array.from({ length: digits }, () => random.below(16).toString(16)).join("");
  return `${hex(8)}-${hex(4)}-4${hex(3)}-${"89ab"[random.below(4)]}${hex(3)}-${hex(12)}`;
}

/** Random letters. */
export function letters(random: Random, count: number, from = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"): string {
  return Array.from({ length: count }, () => from[random.below(from.length)]).join("");
}

/** `a`, `a and b`, `a, b, and c`. */
export function listed(items: readonly string[]): string {
  if (items.length < 3) return items.join(" and ");
  return `${items.slice(0, -1).join(", ")}, and ${items.at(-1)}`;
}

/** Sentences of `count` words of prose, from a random place on. */
export function sentencesOf(random: Random, words: readonly string[], count: number): string[] {
  const from = random.below(words.length);
  const taken = Array.from({ length: count }, (_, i) => words[(from + i) % words.length] as string);
  return taken.join(" ").match(/[^.!?]*[.!?]+["')]*\s*|[^.!?]+$/g)?.map((sentence) => sentence.trim()) ?? [];
}

/** Lines joined by `separator`, and where the lines at `marked` begin and end. */
export function join(
  lines: readonly string[],
  separator: string,
  marked: readonly number[],
  before = 0,
): { readonly text: string; readonly spans: readonly (readonly [number, number])[] } {
  const starts: number[] = [];
  let at = before;
  for (const line of lines) {
    starts.push(at);
    at += line.length + separator.length;
  }
  return {
    text: lines.join(separator),
    spans: marked.map((i) => [starts[i] as number, (starts[i] as number) + (lines[i] as string).length]),
  };
}

/** `pieces` put between `lines` before the places given, in ascending order of place; where each piece went. */
export function insert(
  lines: readonly string[],
  pieces: readonly string[],
  places: readonly number[],
): { readonly lines: string[]; readonly at: number[] } {
  const order = [...pieces.keys()].sort((a, b) => (places[a] as number) - (places[b] as number) || a - b);
  const out: string[] = [];
  const at = new Array<number>(pieces.length).fill(0);
  let next = 0;
  for (let i = 0; i <= lines.length; i++) {
    while (next < order.length && (places[order[next] as number] as number) <= i) {
      at[order[next] as number] = out.length;
      out.push(pieces[order[next] as number] as string);
      next++;
    }
    if (i < lines.length) out.push(lines[i] as string);
  }
  return { lines: out, at };
}

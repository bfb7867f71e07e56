/**
 * Prose that nobody has read before: seeded sentences from templates and word lists.
 *
 * @module
 */
import { Random } from "./random.ts";
import { names, nouns } from "./words.ts";

const PLAIN = (
  "man woman child farmer baker miller sailor teacher doctor soldier merchant painter hunter weaver boat cart horse dog bird " +
  "fish tree stone letter book table window garden kitchen market church school bridge road field forest island mountain"
).split(" ");
const VERBS = "found carried followed watched remembered painted repaired counted sold borrowed crossed guarded opened"
  .split(" ");
const ADJECTIVES = "old small quiet narrow heavy bright cold empty broken gentle distant crowded dusty golden hollow"
  .split(" ");
const ADVERBS = "slowly|quietly|at once|in the evening|before dawn|without a word|in the rain|after supper".split("|");
const TIMES = ["In spring", "One morning", "Later that year", "At noon", "On the third day", "When the bell rang"];

/** `N` noun, `C` compound noun, `A` adjective, `V` verb, `P` name, `D` adverb, `T` time. */
const TEMPLATES = (
  "The A N V the N.|P V the A N D.|T the N V a C.|Nobody knew why P V the N.|The C stood near the A N.|" +
  "P and P V the C together.|T, P V a A N.|It was the N that V the C, and not the A N.|" +
  "The N of P was A and A.|Every N in the town V the C D.|P asked the N about the C.|The N answered D.|" +
  "There was a A C behind the N.|T nothing was left but the N and the C.|P had never seen so A a N.|" +
  "The A C belonged to P.|If the N was A, P V it.|The road to the C was A.|P wrote to P about the A N.|" +
  "One N and one more shared the C.|The N V the C while P slept.|T the A N came home.|P laughed, and the N V the A C.|" +
  "The people of the C V the N D.|It took P a long time, but the N V the C.|Between the N and the C lay a A N.|" +
  "The N was too A for P.|P thought of the C, then of the N.|T a N came to the C and V it.|" +
  "The A N was the last one that P V.|No N was ever as A as this one.|P kept the C for the N.|" +
  "The price of the N was high, so P V the C.|Some said that the N V the C D.|P sat by the C and V the N.|" +
  "The A N had a A C.|D the N V the door of the C.|T, the wind took the N from P.|" +
  "Where the C ended, the A N began.|P promised to return the C to the N."
).split("|");

/** At least `characters` of prose, equal for equal seeds. */
export function grammarText(characters: number, seed: number | string = 1): string {
  const random = new Random("grammar", seed);
  const one = (from: readonly string[]) => from[random.below(from.length)] as string;
  const lists: Readonly<Record<string, readonly string[]>> = {
    N: PLAIN,
    C: nouns,
    A: ADJECTIVES,
    V: VERBS,
    P: names,
    D: ADVERBS,
    T: TIMES,
  };
  const parts: string[] = [];
  for (let length = 0, i = 1; length < characters; i++) {
    const words = one(TEMPLATES).replaceAll(/\b[NCAVPDT]\b/g, (letter) => one(lists[letter] as readonly string[]));
    const sentence = (words[0] as string).toUpperCase() + words.slice(1) + (i % 7 === 0 ? "\n" : " ");
    parts.push(sentence);
    length += sentence.length;
  }
  return parts.join("");
}

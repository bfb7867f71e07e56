/**
 * Which tokens end a generation. Files name one or two of them; the others are known by their text, as llama.cpp knows them.
 *
 * @module
 */

/** Texts of tokens that end a turn, a document or a file. */
const ENDS: ReadonlySet<string> = new Set([
  "<|eot_id|>",
  "<|im_end|>",
  "<|end|>",
  "<|return|>",
  "<|call|>",
  "<|flush|>",
  "<|calls|>",
  "<end_of_turn>",
  "<|endoftext|>",
  "</s>",
  "<|eom_id|>",
  "<EOT>",
  "_<EOT>",
  "[EOT]",
  "[EOS]",
  "<|end_of_text|>",
  "<end_of_utterance>",
  "<eos>",
  "<turn|>",
  "<｜end▁of▁sentence｜>",
  "<|fim_pad|>",
  "<fim-pad>",
  "<fim_pad>",
  "<PAD>",
  "[PAD]",
  "<|fim_repo|>",
  "<|repo_name|>",
  "<fim-repo>",
  "<REPO>",
  "<reponame>",
  "<|file_sep|>",
]);

/** Whether a token of this text ends a generation. */
export function endsGeneration(text: string): boolean {
  return ENDS.has(text);
}

/**
 * Adds the tokens known by their text to the `declared` ids.
 *
 * Only control tokens count: Gemma has an ordinary token `</s>`, HTML's, and a text about HTML must not end there.
 */
export function endTokens(
  declared: Iterable<number>,
  tokens: Iterable<{ readonly id: number; readonly text: string; readonly control: boolean }>,
): Set<number> {
  const ends = new Set(declared);
  const texts = new Map<string, number>();
  for (const { id, text, control } of tokens) {
    if (!control || !endsGeneration(text)) continue;
    ends.add(id);
    texts.set(text, id);
  }
  // Harmony: there `<|end|>` ends a message, and `<|return|>` or `<|call|>` the turn.
  const harmony = (texts.has("<|return|>") && texts.has("<|call|>")) ||
    (texts.has("<|calls|>") && texts.has("<|flush|>"));
  const end = texts.get("<|end|>");
  if (harmony && end !== undefined) ends.delete(end);
  return ends;
}

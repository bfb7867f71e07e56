/**
 * The prompts of the golden texts. The long ones carry chapters of the King James Bible (genesis.txt, public domain):
 * real text of the length that matters, which a small model continues with confidence.
 *
 * @module
 */

/** One prompt, before tokenization; special tokens in it are meant. */
export interface GoldenPrompt {
  readonly name: string;
  readonly text: string;
}

const GENESIS = Deno.readTextFileSync(new URL("./genesis.txt", import.meta.url));

function chapters(from: number, to: number): string {
  const start = GENESIS.indexOf(`Genesis ${from}\n`);
  const end = GENESIS.indexOf(`\nGenesis ${to + 1}\n`);
  return GENESIS.slice(start, end < 0 ? undefined : end);
}

function chat(user: string): string {
  return "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n" +
    `<|im_start|>user\n${user}<|im_end|>\n<|im_start|>assistant\n`;
}

/** By the model's name in the model store. */
export const GOLDEN_PROMPTS: Readonly<Record<string, readonly GoldenPrompt[]>> = {
  "smollm2-135m-instruct": [
    { name: "sky", text: chat("Why is the sky blue?") },
    { name: "fibonacci", text: 'def fibonacci(n):\n    """Return the n-th Fibonacci number."""\n' },
    { name: "sums", text: "12 + 12 = 24\n13 + 13 = 26\n14 + 14 = 28\n" },
    { name: "français", text: "Il était une fois, dans un petit village près de la mer, un pêcheur qui" },
    { name: "genesis 2k", text: chapters(1, 3).slice(0, 7600) },
    { name: "genesis 6k", text: chat(`${chapters(1, 7)}\n\nWho built the ark, and why? Tell the story briefly.`) },
  ],
  "gemma3-270m": [
    { name: "sky", text: "Question: Why is the sky blue?\nAnswer:" },
    { name: "fibonacci", text: 'def fibonacci(n):\n    """Return the n-th Fibonacci number."""\n' },
    { name: "sums", text: "12 + 12 = 24\n13 + 13 = 26\n14 + 14 = 28\n" },
    { name: "français", text: "Il était une fois, dans un petit village près de la mer, un pêcheur qui" },
    { name: "genesis 2k", text: chapters(1, 3).slice(0, 7600) },
    { name: "genesis 6k", text: `${chapters(1, 7)}\n\nQuestion: Who built the ark, and why?\nAnswer:` },
  ],
};

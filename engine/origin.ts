/**
 * What a generation begins with: the longest prefix of its prompt that was read before, and what becomes of it afterwards.
 *
 * @module
 */
import type { Message, Tokenizer } from "../model/model.ts";
import type { GenerateHow, Prompt } from "./protocol.ts";
import type { GenerationOrigin } from "./generation.ts";
import type { Loop } from "./loop.ts";
import type { EnginePlan } from "./plan.ts";
import { ContextError } from "../core/errors.ts";
import type { SequenceState } from "../attention/state.ts";
import type { ContextPrefix, Contexts, ContextSeed } from "./contexts.ts";
import { newContextId } from "./context_names.ts";

/** The context that a prompt continues. */
export type Base = Pick<ContextSeed, "id" | "tokens" | "messages" | "share">;

/**
 * The whole prompt: messages follow the context's own, or repeat them; text and ids follow its tokens. A question after a
 * document that was kept as a user's message joins that message, for many templates refuse two in a row. Throws
 * `ContextError` where a conversation should follow a text.
 */
export function continued(base: Base, prompt: Prompt, tokenizer: Tokenizer): Prompt {
  if (typeof prompt === "string" || prompt instanceof Int32Array) {
    const added = typeof prompt === "string" ? tokenizer.encode(prompt, { bos: false }) : prompt;
    return Int32Array.from([...base.tokens, ...added]);
  }
  const before = base.messages;
  if (before === undefined) {
    throw new ContextError("mismatch", "Cannot continue context: it was made from text, not from messages; give text");
  }
  if (!("messages" in prompt)) return joined(before, prompt);
  return { ...prompt, messages: joined(before, prompt.messages) };
}

/** What is shared between sequences of their own accord: prompts are read alike by all, answers were made by one way to attend. */
export function shareKey({ policy, index }: EnginePlan, salt = ""): string {
  return `${policy} ${index} ${salt}`;
}

function messagesOf(prompt: Prompt): readonly Message[] | undefined {
  if (typeof prompt === "string" || prompt instanceof Int32Array) return undefined;
  return "messages" in prompt ? prompt.messages : prompt;
}

function joined(before: readonly Message[], after: readonly Message[]): readonly Message[] {
  if (before.every((m, i) => m.role === after[i]?.role && m.content === after[i]?.content)) return after;
  const [last, first] = [before.at(-1), after[0]];
  if (last?.role !== "user" || first?.role !== "user") return [...before, ...after];
  return [...before.slice(0, -1), { ...first, content: `${last.content}\n\n${first.content}` }, ...after.slice(1)];
}

/** What is known when a generation is about to begin. */
export interface OriginPlace {
  /** Where ended sequences are. */
  readonly contexts: Contexts;
  /** Where running ones are. */
  readonly loop: Loop;
  /** Of the whole prompt. */
  readonly tokens: ArrayLike<number>;
  /** How the sequence will attend. */
  readonly attention: EnginePlan;
  /** Most tokens of the sequence. */
  readonly numMaxTokens: number;
  /** The caller's wishes. */
  readonly how: GenerateHow;
  /** The context that was named. */
  readonly base: Base | undefined;
  /** The prompt that `tokens` are. */
  readonly whole: Prompt;
  /** False: it is over already, and nothing is forked. */
  readonly isWanted: boolean;
}

/** Forks what the sequence can begin with. The state belongs to whoever calls. */
export function originOf(place: OriginPlace): { readonly origin: GenerationOrigin; readonly numTokens: number } {
  const { contexts, attention, tokens, numMaxTokens, how, whole } = place;
  const share = shareKey(attention, how.cacheSalt);
  const found = place.isWanted ? find(place, share) : undefined;
  // One token at least is run: its logits are what the answer begins with.
  const numTokens = Math.min(found?.numTokens ?? 0, tokens.length - 1);
  const state = numTokens === 0 ? undefined : found?.state.fork(numTokens, numMaxTokens, {
    takesOver: found.id !== undefined && numTokens === found.state.cache.length,
    plan: attention.plan,
  });
  const beganWith = numTokens === 0 ? undefined : found?.id;
  const specs = { policy: attention.policy, index: attention.index };
  if (found !== undefined && state !== undefined && numTokens < found.state.cache.length) {
    keepBranch(contexts, state, tokens, { attention: specs, share, parent: beganWith });
  }
  const savesAs = how.saveContext === undefined ? undefined : newContextId();
  const messages = messagesOf(whole);
  const origin: GenerationOrigin = {
    state,
    beganWith,
    savesAs,
    share,
    keepsText: savesAs !== undefined && messages !== undefined,
    keep({ sequence, reason, text }, ended) {
      if (sequence.numCachedTokens === 0) return false;
      const isSaved = savesAs !== undefined && reason !== "cancelled";
      const answer: Message[] = how.isPromptOnly === true ? [] : [{ role: "assistant", content: text }];
      return contexts.keep({
        id: isSaved ? savesAs : newContextId(),
        tokens: Int32Array.from(sequence.tokens.slice(0, sequence.numCachedTokens)),
        state: ended,
        attention: specs,
        share,
        parent: beganWith,
        ...(isSaved ? { name: how.saveContext, ttlSeconds: how.ttlSeconds, metadata: how.metadata } : {}),
        ...(isSaved && messages !== undefined ? { messages: [...messages, ...answer] } : {}),
      });
    },
  };
  return { origin, numTokens };
}

/**
 * A fork of fewer tokens than there were has an index of its own, built anew: it stays, for the next prompt that parts from the others
 * at this place.
 */
function keepBranch(
  contexts: Contexts,
  state: SequenceState,
  prompt: ArrayLike<number>,
  seed: Pick<ContextSeed, "attention" | "share" | "parent">,
): void {
  if (!contexts.keepsUnnamed || state.policies.every((policy) => policy?.index === undefined)) return;
  const { length } = state.cache;
  const tokens = Int32Array.from({ length }, (_, i) => prompt[i] as number);
  const copy = state.fork(length, length);
  const isKept = contexts.keep({ ...seed, id: newContextId(), tokens, state: copy, isBranch: true });
  if (!isKept) copy[Symbol.dispose]();
}

/** Named: that one only. Otherwise the longest, running sequences included where ended ones stay. */
function find(
  { contexts, loop, tokens, how, base }: OriginPlace,
  share: string,
): Omit<ContextPrefix, "id"> & Partial<Pick<ContextPrefix, "id">> | undefined {
  if (base !== undefined) return contexts.prefix(base.id, tokens);
  if (how.cachePrompt === false) return undefined;
  const kept = contexts.longest(tokens, share);
  const live = contexts.keepsUnnamed ? loop.longest(tokens, share) : undefined;
  return (live?.numTokens ?? 0) > (kept?.numTokens ?? LEAST_LIVE) ? live : kept;
}

/** As many tokens must a running sequence share, at least. */
const LEAST_LIVE = 15;

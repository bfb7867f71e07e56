/**
 * Budgets that fall from layer to layer (PyramidKV, Cai et al. 2024, section 4.2).
 *
 * @module
 */

/** What a layer's budget depends on. */
export interface PyramidPlace {
  /** From 0. */
  readonly layer: number;
  /** How many there are. */
  readonly layers: number;
  /** Tokens that a budget is spent on. */
  readonly tokens: number;
}

/**
 * Keys of one layer where `budget` is the mean: from 2 · budget − min in the first layer down to min = budget / beta in the last,
 * in equal steps, rounded down; no layer has more than there are tokens, and what one lacks the last ones get. Caches of less than
 * twice the budget are shared out evenly, as by the authors.
 */
export function pyramidBudget(budget: number, beta: number, { layer, layers, tokens }: PyramidPlace): number {
  if (tokens < 2 * budget || layers < 2) return budget;
  let least = Math.floor(budget / beta);
  let most = 2 * budget - least;
  if (most >= tokens) {
    most = tokens;
    least = 2 * budget - most;
  }
  return Math.floor(most - layer * ((most - least) / (layers - 1)));
}

/**
 * A byte model that predicts each byte from the two before it: the baseline that a trained model has to
 * beat. Counts of the three orders are interpolated by Witten and Bell's method C: a context seen n
 * times with t different successors keeps n / (n + t) of the mass and gives the rest to the shorter
 * context; the shortest gives it to the uniform distribution. Source: Witten and Bell, "The zero-frequency
 * problem" (IEEE Transactions on Information Theory 37(4), 1991).
 */

import { ArgumentError } from '../../core/errors.ts';

/**
 * Mean cross entropy, in nats per symbol, of `validation` under the model counted on `train`. Symbols
 * are integers below `alphabet`: 256 for bytes, more for byte tokens with special ones. The first
 * two symbols of `validation` are context only. Throws ArgumentError.
 */
export function orderTwoByteLoss(
  train: ArrayLike<number>,
  validation: ArrayLike<number>,
  alphabet = 256,
): number {
  if (train.length < 3 || validation.length < 3) {
    throw new ArgumentError(
      `orderTwoByteLoss: both parts need at least 3 symbols (got ${train.length} and ${validation.length}). Use more text.`,
      { train: train.length, validation: validation.length },
    );
  }
  // Dense tables over the symbols that occur; 0 stands for all that do not.
  const code = new Int32Array(alphabet);
  let size = 1;
  for (const symbols of [train, validation]) {
    for (let i = 0; i < symbols.length; i++) {
      const symbol = symbols[i] ?? -1;
      if (!Number.isInteger(symbol) || symbol < 0 || symbol >= alphabet) {
        throw new ArgumentError(
          `orderTwoByteLoss: a symbol is outside the alphabet (got ${symbol}). Give symbols from 0 to ${alphabet - 1}.`,
          { symbol, alphabet },
        );
      }
      if (code[symbol] === 0) code[symbol] = size++;
    }
  }
  const one = new Context(1, size);
  const two = new Context(size, size);
  const three = new Context(size * size, size);
  for (let i = 0; i < train.length; i++) {
    const c = code[train[i] ?? 0] ?? 0;
    const b = code[train[i - 1] ?? 0] ?? 0;
    const a = code[train[i - 2] ?? 0] ?? 0;
    one.add(0, c);
    if (i >= 1) two.add(b, c);
    if (i >= 2) three.add(a * size + b, c);
  }
  let loss = 0;
  for (let i = 2; i < validation.length; i++) {
    const a = code[validation[i - 2] ?? 0] ?? 0;
    const b = code[validation[i - 1] ?? 0] ?? 0;
    const c = code[validation[i] ?? 0] ?? 0;
    const p1 = one.blend(0, c, 1 / alphabet);
    const p2 = two.blend(b, c, p1);
    loss -= Math.log(three.blend(a * size + b, c, p2));
  }
  return loss / (validation.length - 2);
}

/** Counts of the successors of each context. */
class Context {
  readonly #size: number;
  readonly #counts: Uint32Array;
  readonly #totals: Uint32Array;
  readonly #kinds: Uint32Array;

  constructor(contexts: number, size: number) {
    this.#size = size;
    this.#counts = new Uint32Array(contexts * size);
    this.#totals = new Uint32Array(contexts);
    this.#kinds = new Uint32Array(contexts);
  }

  add(context: number, symbol: number): void {
    const at = context * this.#size + symbol;
    if (this.#counts[at] === 0) this.#kinds[context] = (this.#kinds[context] ?? 0) + 1;
    this.#counts[at] = (this.#counts[at] ?? 0) + 1;
    this.#totals[context] = (this.#totals[context] ?? 0) + 1;
  }

  /** Probability of `symbol` after `context`, where `shorter` is the one without its first symbol. */
  blend(context: number, symbol: number, shorter: number): number {
    const kinds = this.#kinds[context] ?? 0;
    if (kinds === 0) return shorter;
    const count = this.#counts[context * this.#size + symbol] ?? 0;
    return (count + kinds * shorter) / ((this.#totals[context] ?? 0) + kinds);
  }
}

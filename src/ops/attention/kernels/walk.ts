/** Loops that the attention kernels share: dealing items to threads, and the keys that a block of queries sees. */

import type { FunctionBuilder } from '../../../codegen/wasm/function.ts';
import type { KernelArguments } from '../../../codegen/wasm/kernel-function.ts';
import { type I32, select, type Var } from '../../../codegen/wasm/scalars.ts';
import type { MaskParams } from './shape.ts';

/**
 * Runs `body` for this thread's part of `count` items. They are dealt back and forth (0 1 1 0 0 1 ...),
 * so that items of falling cost come out even.
 */
export function forItems(
  f: FunctionBuilder,
  k: KernelArguments,
  count: number,
  body: (item: Var<I32>) => void,
): void {
  const round = f.local('i32', 0);
  const start = f.local('i32', 0);
  const item = f.local('i32');
  f.whileLoop(
    () => start.ltS(count),
    () => {
      const back = k.threads.sub(1).sub(k.thread);
      item.set(start.add(select(round.and(1), back, k.thread)));
      f.if(item.ltS(count), () => body(item));
      round.set(round.add(1));
      start.set(start.add(k.threads));
    },
  );
}

/** Which keys are visible to queries at consecutive positions. */
export class Visible {
  readonly #f: FunctionBuilder;
  readonly #mask: MaskParams;
  readonly #limit: I32;
  readonly #offset: I32;

  /** `limit`: number of keys. `offset`: position of query 0. Both cheap to evaluate. */
  constructor(f: FunctionBuilder, mask: MaskParams, limit: I32, offset: I32) {
    this.#f = f;
    this.#mask = mask;
    this.#limit = limit;
    this.#offset = offset;
  }

  /** Keys [from, to) that some query of [first, last] sees; to <= from when there are none. */
  range(first: I32, last: I32): { readonly from: Var<I32>; readonly to: Var<I32> } {
    const { causal, window } = this.#mask;
    const f = this.#f;
    const from = f.local('i32', 0);
    const to = f.let(this.#limit);
    if (causal) to.set(to.minS(f.let(last.add(this.#offset).add(1))));
    if (window > 0) from.set(from.maxS(f.let(first.add(this.#offset).sub(window - 1))));
    return { from, to };
  }

  /** The part of [start, start + count) that one query sees, relative to start; may be empty. */
  row(query: I32, start: I32, count: I32): { readonly from: Var<I32>; readonly to: Var<I32> } {
    const { causal, window } = this.#mask;
    const f = this.#f;
    const from = f.local('i32', 0);
    const to = f.let(count);
    if (!causal) return { from, to };
    const next = f.let(query.add(this.#offset).sub(start).add(1));
    to.set(to.minS(next).maxS(0));
    if (window > 0) from.set(from.maxS(f.let(next.sub(window))).minS(count));
    return { from, to };
  }
}

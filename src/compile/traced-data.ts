/** Tensor data inside a trace: a value of the graph being built, with in-place changes made functional. */

import { CompileError } from '../core/errors.ts';
import type { Value } from '../ir/graph.ts';
import type { TensorData } from '../tensor/data.ts';

/** The present value of some traced memory; in-place ops advance it. */
export interface TraceRoot {
  value: Value;
  version: number;
}

/** Traced data or captured state, as views see it: its present value, and a version that changes with it. */
export interface Viewed {
  readonly version: number;
  readonly value: Value;
}

/** How a view is derived from what it looks into, so that it follows in-place changes. */
interface ViewOf {
  readonly base: Viewed;
  readonly rebuild: (base: Value) => Value;
  seen: number;
}

export class TracedData implements TensorData {
  readonly kind = 'traced';
  readonly root: TraceRoot;
  readonly #view: ViewOf | undefined;

  constructor(root: TraceRoot, view?: ViewOf) {
    this.root = root;
    this.#view = view;
  }

  get version(): number {
    return this.#view ? this.#view.base.version : this.root.version;
  }

  /** Graph value at this moment of the trace. */
  get value(): Value {
    const view = this.#view;
    if (view && view.base.version !== view.seen) {
      this.root.value = view.rebuild(view.base.value);
      view.seen = view.base.version;
    }
    return this.root.value;
  }

  /** After an in-place op: this memory now holds `value`. The version is advanced by bumpVersion. */
  assign(value: Value): void {
    if (this.#view) {
      throw new CompileError(
        'compile: a view was changed in place inside a compiled step. Change the whole tensor, or clone the view first.',
      );
    }
    this.root.value = value;
  }

  bumpVersion(): void {
    this.root.version++;
  }

  retain(): TracedData {
    return this;
  }

  release(): void {}
}

/** Tensor data inside a trace: a value of the graph being built, with in-place changes made functional. */

import { invariant } from '../core/errors.ts';
import type { Value } from '../ir/graph.ts';
import type { TensorData } from '../tensor/data.ts';
import type { ViewStep } from '../tensor/lineage.ts';

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

/** How a view is derived from what it looks into, so that each follows in-place changes of the other. */
export interface ViewOf {
  readonly base: Viewed;
  /** The data of the base, and the op that made the view of it. */
  readonly baseData: TensorData;
  readonly step: ViewStep;
  readonly rebuild: (base: Value) => Value;
  seen: number;
}

export class TracedData implements TensorData {
  readonly kind = 'traced';
  readonly root: TraceRoot;
  /** Set when this is a view. */
  readonly view: ViewOf | undefined;

  constructor(root: TraceRoot, view?: ViewOf) {
    this.root = root;
    this.view = view;
  }

  get version(): number {
    return this.view ? this.view.base.version : this.root.version;
  }

  /** Graph value at this moment of the trace. */
  get value(): Value {
    const { view } = this;
    if (view && view.base.version !== view.seen) {
      this.root.value = view.rebuild(view.base.value);
      view.seen = view.base.version;
    }
    return this.root.value;
  }

  /** After an in-place op: this memory now holds `value`. The version is advanced by bumpVersion. */
  assign(value: Value): void {
    invariant(!this.view, () => 'a traced view is changed through its base');
    this.root.value = value;
  }

  get outlivesStep(): boolean {
    return this.view ? this.view.baseData.outlivesStep : this.value.node.kind !== 'op';
  }

  bumpVersion(): void {
    this.root.version++;
  }

  retain(): TracedData {
    return this;
  }

  release(): void {}

  fork(): TracedData {
    return new TracedData({ value: this.value, version: 0 });
  }
}

/** A mode that hands everything to the one below; base of modes that only watch or change some ops. */

import type { HostTensor } from '../core/host-tensor.ts';
import type { Aval } from '../ir/aval.ts';
import type { AnyOp, Params } from '../ir/op.ts';
import type { MemoryCategory } from '../runtime/allocator.ts';
import type { TensorData } from './data.ts';
import type { Generator } from './generator.ts';
import type { Mode } from './mode.ts';
import type { Tensor } from './tensor.ts';

export class PassThroughMode implements Mode {
  readonly inner: Mode;

  constructor(inner: Mode) {
    this.inner = inner;
  }

  get tracing(): boolean {
    return this.inner.tracing;
  }

  run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    return this.inner.run(op, inputs, params, outputs);
  }

  fromHost(tensor: HostTensor, category: MemoryCategory): TensorData {
    return this.inner.fromHost(tensor, category);
  }

  toHost(tensor: Tensor): Uint8Array {
    return this.inner.toHost(tensor);
  }

  toHostAsync(tensor: Tensor): Promise<Uint8Array> {
    return this.inner.toHostAsync(tensor);
  }

  onEachRun(work: () => void): void {
    this.inner.onEachRun(work);
  }

  drawState(generator: Generator): { readonly state: Tensor; readonly draw: number } {
    return this.inner.drawState(generator);
  }
}

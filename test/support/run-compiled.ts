/**
 * Runs the body of a test that was written for eager execution inside `compile`. The body goes through
 * twice. First eagerly, noting the bytes of every host read. Then as a compiled step: while it is
 * traced, each host read becomes a result of the step and is answered with the bytes of the eager run,
 * so that all assertions of the body hold in the trace too; when the plan runs, its results must have
 * those bytes. Thus hooks, errors, versions, `.grad` and flags are checked in the trace, numbers in the run.
 */

import assert from 'node:assert/strict';
import { compile } from '../../src/compile/compile.ts';
import type { HostTensor } from '../../src/core/host-tensor.ts';
import type { MemoryCategory } from '../../src/runtime/allocator.ts';
import { clone } from '../../src/ops/views.ts';
import { eagerMode } from '../../src/tensor/backend.ts';
import { noGrad } from '../../src/tensor/context.ts';
import type { TensorData } from '../../src/tensor/data.ts';
import { toHost } from '../../src/tensor/factory.ts';
import { defaultGenerator, type Generator } from '../../src/tensor/generator.ts';
import { type Mode, withMode } from '../../src/tensor/mode.ts';
import { PassThroughMode } from '../../src/tensor/pass-through-mode.ts';
import { withSavedTensorHooks } from '../../src/tensor/saved-tensor.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { scope } from '../../src/tensor/with-scope.ts';

/** What tensors made from host values are to a compiled step. */
export type HostValues = 'constants' | 'state';

/** Fails unless `body` does the same eagerly and compiled. */
export function runCompiled(body: () => unknown, hostValues: HostValues): void {
  const start = defaultGenerator.getState();
  const reads = eagerReads(body);
  defaultGenerator.setState(start);
  const outside: TensorData[] = [];
  let draws = false;
  const step = (): Tensor[] => {
    const results: Tensor[] = [];
    const make = (inner: Mode): Mode => {
      const answers = new AnsweringMode(inner, reads, results);
      return hostValues === 'state' ? new OutsideMode(answers, outside) : answers;
    };
    withMode(make, () => {
      withMode(
        (inner) => new WatchingMode(inner, () => (draws = true)),
        () => refusePromise(body()),
      );
    });
    assert.equal(results.length, reads.length, 'the trace reads as often as the eager run');
    return results;
  };
  const compiled = compile(step, { verify: true });
  try {
    const check = (): void =>
      scope(() => {
        compiled().forEach((result, i) => {
          assert.deepEqual(toHost(result), reads[i], `host read ${i + 1}, compiled and eager`);
        });
      });
    check();
    assert.equal(compiled.plans.length, 1, 'the body ran compiled');
    // Again, where a run leaves everything as it was.
    if (hostValues === 'constants' && !draws) {
      check();
      assert.equal(compiled.plans.length, 1, 'its plan can be used again');
    }
  } finally {
    compiled.dispose();
    for (const data of outside) data.release();
  }
}

function eagerReads(body: () => unknown): HostTensor[] {
  const reads: HostTensor[] = [];
  withMode(
    (inner) => new NotingMode(inner, reads),
    () => refusePromise(body()),
  );
  return reads;
}

function refusePromise(returned: unknown): void {
  assert.ok(!(returned instanceof Promise), 'an asynchronous body cannot be compiled');
}

class NotingMode extends PassThroughMode {
  readonly #reads: HostTensor[];

  constructor(inner: Mode, reads: HostTensor[]) {
    super(inner);
    this.#reads = reads;
  }

  override toHost(tensor: Tensor): Uint8Array {
    const data = super.toHost(tensor);
    this.#reads.push({ dtype: tensor.dtype, shape: tensor.shape, data });
    return data;
  }
}

/** Answers host reads with what the eager run read, and keeps what they would read as a result. */
class AnsweringMode extends PassThroughMode {
  readonly #reads: readonly HostTensor[];
  readonly #results: Tensor[];

  constructor(inner: Mode, reads: readonly HostTensor[], results: Tensor[]) {
    super(inner);
    this.#reads = reads;
    this.#results = results;
  }

  override toHost(tensor: Tensor): Uint8Array {
    const read = this.#reads[this.#results.length];
    assert.ok(read, 'the trace reads no more than the eager run');
    const { dtype, shape } = tensor;
    assert.deepEqual({ dtype, shape }, { dtype: read.dtype, shape: read.shape });
    // The value at this moment, whatever happens to the tensor later on.
    const copy = withMode(
      () => this.inner,
      () => withSavedTensorHooks(undefined, () => noGrad(() => clone(tensor))),
    );
    this.#results.push(copy.keep());
    return read.data.slice();
  }
}

/** Puts host values into memory outside the step, which then captures it. */
class OutsideMode extends PassThroughMode {
  readonly #made: TensorData[];

  constructor(inner: Mode, made: TensorData[]) {
    super(inner);
    this.#made = made;
  }

  override fromHost(tensor: HostTensor, category: MemoryCategory): TensorData {
    const data = eagerMode().fromHost(tensor, category);
    this.#made.push(data);
    return data.retain();
  }
}

/** Tells of random draws. */
class WatchingMode extends PassThroughMode {
  readonly #onDraw: () => void;

  constructor(inner: Mode, onDraw: () => void) {
    super(inner);
    this.#onDraw = onDraw;
  }

  override drawState(generator: Generator): { readonly state: Tensor; readonly draw: number } {
    this.#onDraw();
    return super.drawState(generator);
  }
}

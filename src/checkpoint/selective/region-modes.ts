/** The modes around the two runs of a region that keeps values: one notes, the other hands out. */

import { CheckpointError } from '../../core/errors.ts';
import type { Aval } from '../../ir/aval.ts';
import type { AnyOp, Params } from '../../ir/op.ts';
import type { TensorData } from '../../tensor/data.ts';
import { type Mode, withMode } from '../../tensor/mode.ts';
import { PassThroughMode } from '../../tensor/pass-through-mode.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { withoutOnce } from '../run-once.ts';
import { PhantomData } from './phantom.ts';
import type { Kept, RegionTape, TapeEntry, TapeReplay } from './tape.ts';

export class RecordingMode extends PassThroughMode {
  readonly #tape: RegionTape;

  constructor(inner: Mode, tape: RegionTape) {
    super(inner);
    this.#tape = tape;
  }

  override run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    const data = this.inner.run(op, inputs, params, outputs);
    try {
      this.#tape.record(op, inputs, params, outputs, data);
    } catch (error) {
      for (const item of data) item.release();
      throw error;
    }
    return data;
  }

  override toHost(tensor: Tensor): Uint8Array {
    const bytes = this.inner.toHost(tensor);
    this.#tape.recordHostRead(bytes);
    return bytes;
  }
}

/** Runs what is needed, hands out what is kept, and gives phantoms for the rest. */
export class ReplayingMode extends PassThroughMode {
  readonly #replay: TapeReplay;
  /** Undefined when everything that is not kept is to be run. */
  readonly #needed: ReadonlySet<TapeEntry> | undefined;
  readonly #region: string;

  constructor(
    inner: Mode,
    replay: TapeReplay,
    needed: ReadonlySet<TapeEntry> | undefined,
    region: string,
  ) {
    super(inner);
    this.#replay = replay;
    this.#needed = needed;
    this.#region = region;
  }

  override run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    const phantom = inputs.some((input) => input.data instanceof PhantomData);
    const entry = this.#replay.next(op, outputs);
    if (entry?.kept) return this.#read(entry.kept);
    if (entry?.alias && phantom) return [new PhantomData(inputs[0]?.data)];
    const skipped = entry?.alias === false && this.#needed?.has(entry) === false;
    if (skipped || phantom) return outputs.map(() => new PhantomData());
    return this.inner.run(op, inputs, params, outputs);
  }

  /** Reading may recompute a region around this one, which must see nothing of this recompute. */
  #read(kept: readonly Kept[]): TensorData[] {
    return withoutOnce(() =>
      withMode(
        () => this.inner,
        () => kept.map((value) => owned(value.read())),
      ),
    );
  }

  override toHost(tensor: Tensor): Uint8Array {
    const bytes = this.#replay.nextHostRead();
    if (bytes) return bytes;
    if (!(tensor.data instanceof PhantomData)) return this.inner.toHost(tensor);
    throw new CheckpointError(
      `checkpoint: the recompute of ${this.#region} reads a value on the host that its forward did not read ` +
        `(got ${tensor.describe()}). Make the region do the same work each time.`,
    );
  }
}

/** The data of a handle that goes. */
function owned(tensor: Tensor): TensorData {
  const data = tensor.data.retain();
  tensor.dispose();
  return data;
}

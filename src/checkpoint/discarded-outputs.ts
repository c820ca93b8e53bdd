/**
 * Output-discarding recompute (checkpointing.md S7): what a region returned is not kept by the ops that save
 * it. They get a holder instead, and the region's recompute, which then runs to its end, makes the output
 * again in the same layout (Megatron-Core: CheckpointWithoutOutput). The region stays in reach for as
 * long as a handle of an output, or a holder, is alive.
 */

import { CheckpointError } from '../core/errors.ts';
import type { Layout } from '../core/shape.ts';
import { type Aval, formatAval, sameAval } from '../ir/aval.ts';
import { BufferData } from '../tensor/data.ts';
import {
  type SaveContext,
  type SaveStandIn,
  type SavedTensorHooks,
  currentHooks,
} from '../tensor/saved-tensor.ts';
import { forEachTensor } from '../tensor/structure.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { DiscardedOutput, Holder, OutputPart } from './holder.ts';
import type { Source } from './selective/tape.ts';

/** The region, as its outputs know it. */
export interface OutputRegion {
  readonly sourceOf: (tensor: Tensor) => Source | undefined;
  readonly hold: (tensor: Tensor, context: SaveContext, part: OutputPart) => Holder;
  readonly take: (holder: Holder) => Tensor;
  readonly drop: (holder: Holder) => void;
  readonly held: NonNullable<SavedTensorHooks<Holder>['held']>;
  /** The last handle of an output is gone. */
  readonly closed: () => void;
}

export class DiscardedOutputs {
  readonly #outputs: DiscardedOutput[] = [];
  readonly #region: OutputRegion;
  #handles = 0;

  /** `result`: what the region returned for `args`; arguments that it hands through are left alone. */
  constructor(region: OutputRegion, args: unknown, result: unknown) {
    this.#region = region;
    const given = new Set<object>();
    forEachTensor(args, (tensor) => given.add(tensor.data.root));
    let position = 0;
    forEachTensor(result, (tensor) => {
      const output: DiscardedOutput = {
        position: position++,
        aval: tensor.aval,
        layout: layoutOf(tensor),
        source: region.sourceOf(tensor),
      };
      if (given.has(tensor.data.root)) return;
      this.#outputs.push(output);
      tensor.standIn = this.#standInFor(output, tensor.version);
    });
  }

  /** Whether somebody may still save an output. */
  get open(): boolean {
    return this.#handles > 0;
  }

  /** Where the outputs come from. */
  sources(): Source[] {
    return this.#outputs.flatMap(({ source }) => source ?? []);
  }

  #standInFor(output: DiscardedOutput, version: number): SaveStandIn<Holder> {
    const region = this.#region;
    const hooks: SavedTensorHooks<Holder> = {
      pack: (tensor, context) => region.hold(tensor, context, { output, layout: layoutOf(tensor) }),
      unpack: (holder) => region.take(holder),
      release: (holder) => region.drop(holder),
      held: (holder) => region.held(holder),
    };
    const standIn: SaveStandIn<Holder> = {
      hooks,
      under: currentHooks(),
      version,
      retain: () => {
        this.#handles++;
        return standIn;
      },
      release: () => {
        this.#handles--;
        if (this.#handles === 0) region.closed();
      },
    };
    return standIn.retain();
  }
}

/** In a traced step: whoever saves an output reads it in backward as something that the region saved. */
export function markOutputs<T>(args: unknown, result: unknown, hooks: SavedTensorHooks<T>): void {
  const given = new Set<object>();
  forEachTensor(args, (tensor) => given.add(tensor.data.root));
  forEachTensor(result, (tensor) => {
    if (given.has(tensor.data.root)) return;
    const standIn: SaveStandIn<T> = {
      hooks,
      under: currentHooks(),
      version: tensor.version,
      retain: () => standIn,
      release: () => {},
    };
    tensor.standIn = standIn;
  });
}

/** Tensors for holders of outputs, from what a recompute returned; the caller owns them. */
export function* remadeOutputs(
  region: string,
  holders: Iterable<Holder>,
  result: unknown,
): Generator<[Holder, Tensor]> {
  const made: Tensor[] = [];
  forEachTensor(result, (tensor) => made.push(tensor));
  for (const holder of holders) {
    if (!holder.part) continue;
    const { output, layout } = holder.part;
    const tensor = made[output.position];
    if (!tensor || !sameAval(tensor.aval, output.aval) || !sameLayout(tensor, output.layout)) {
      throw otherOutput(region, output, tensor);
    }
    yield [holder, partOf(tensor, layout, holder.aval)];
  }
}

function partOf({ data }: Tensor, layout: Layout | undefined, { shape, dtype }: Aval): Tensor {
  const own = data.retain();
  const part = own instanceof BufferData && layout ? new BufferData(own.storage, layout) : own;
  return new Tensor(part, shape, dtype).keep();
}

function layoutOf({ data }: Tensor): Layout | undefined {
  return data instanceof BufferData ? data.layout : undefined;
}

function sameLayout(tensor: Tensor, layout: Layout | undefined): boolean {
  const own = layoutOf(tensor);
  return own?.offset === layout?.offset && own?.strides.join() === layout?.strides.join();
}

function otherOutput(
  region: string,
  { position, aval }: DiscardedOutput,
  made: Tensor | undefined,
): CheckpointError {
  return new CheckpointError(
    `checkpoint: the recompute of ${region} returned another output ${position} than its forward ` +
      `(got ${made ? formatAval(made.aval) : 'none'}, ${formatAval(aval)} in forward). Make the region do the same work each time.`,
    { region, position },
  );
}

/** Comparing forward and recompute of a region (checkpointing.md C5). */

import { CheckpointError } from '../core/errors.ts';
import { formatAval, sameAval } from '../ir/aval.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { Holder } from './holder.ts';

const advice =
  'Make the region do the same work each time; debug: true shows the ops of both runs.';

/** Name of a region for messages: the given name, the module it is in, or both. */
export function describeRegion(name: string, module: string): string {
  const named = name === '' ? 'a region' : `region '${name}'`;
  return module === '' ? named : `${named} in ${module}`;
}

export function compareCounts(region: string, forward: number, recompute: number): void {
  if (recompute >= forward) return;
  throw new CheckpointError(
    `checkpoint: A different number of tensors was saved during the original forward and recomputation of ${region} ` +
      `(got ${recompute}, ${forward} in forward). ${advice}`,
    { region, forward, recompute },
  );
}

export function compareAval(region: string, holder: Holder, tensor: Tensor): void {
  if (sameAval(holder.aval, tensor.aval)) return;
  throw new CheckpointError(
    `checkpoint: Recomputed values for the following tensors have different metadata than during the forward pass: ` +
      `tensor ${holder.index} of ${region}, '${holder.context.name}' of ${holder.context.op} ` +
      `(got ${formatAval(tensor.aval)}, ${formatAval(holder.aval)} in forward). ${advice}`,
    {
      region,
      op: holder.context.op,
      index: holder.index,
      forward: holder.aval,
      recompute: tensor.aval,
    },
  );
}

/** A tensor from outside the region, such as a weight, that was changed in place since forward. */
export function compareVersion(region: string, holder: Holder, tensor: Tensor): void {
  if (holder.root !== tensor.data.root || holder.version === tensor.version) return;
  throw new CheckpointError(
    `checkpoint: '${holder.context.name}' of ${holder.context.op} in ${region} comes from outside the region and was changed ` +
      `in place between forward and recompute (got version ${tensor.version}, ${holder.version} in forward). ` +
      'Change it after backward, or clone it for the region.',
    { region, op: holder.context.op, index: holder.index },
  );
}

export function compareValue(region: string, holder: Holder, recomputed: string): void {
  if (holder.checksum === recomputed) return;
  throw new CheckpointError(
    `checkpoint: recomputed values differ from those of the forward pass: tensor ${holder.index} of ${region}, ` +
      `'${holder.context.name}' of ${holder.context.op} (got checksum ${recomputed}, ${holder.checksum} in forward). ${advice}`,
    { region, op: holder.context.op, index: holder.index },
  );
}

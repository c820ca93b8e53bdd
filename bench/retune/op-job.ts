/**
 * Every op record, timed on its first sample made large: all axes times the same whole number, so that
 * sizes keep their relations, and parameters called `shape` or `sizes` with them.
 */

import { isFloat } from '../../src/core/dtype.ts';
import { RetuneError } from '../../src/core/errors.ts';
import { hostTensor } from '../../src/core/host-tensor.ts';
import { formatShape, numElements } from '../../src/core/shape.ts';
import type { AnyOp, Cost, Params, Sample, SampleInput } from '../../src/ir/op.ts';
import { allOps } from '../../src/ops/registry.ts';
import { apply } from '../../src/tensor/apply.ts';
import { noGrad } from '../../src/tensor/context.ts';
import { fromHost } from '../../src/tensor/factory.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { scope } from '../../src/tensor/with-scope.ts';
import type { AnswerOf, OpTiming } from '../driver/protocol.ts';
import { median } from '../driver/statistics.ts';
import { mulberry32 } from '../materials.ts';

/** Samples grow until one of these is reached. */
const enough = { bytes: 32 * 2 ** 20, flops: 2e9 };
/** Below this a sample measures the call, not the kernel. */
const leastBytes = 2 ** 20;

interface SizedSample {
  readonly inputs: readonly SampleInput[];
  readonly params: Params;
  readonly cost: Cost;
}

/** Times every op for about `milliseconds` each. */
export function timeOps(milliseconds: number): AnswerOf<'ops'> {
  const rows: OpTiming[] = [];
  const skipped: { op: string; reason: string }[] = [];
  for (const op of allOps) {
    const sample = op.samples[0];
    if (op.lower.kind === 'view' || !sample) {
      skipped.push({ op: op.name, reason: sample ? 'a view: nothing runs' : 'no sample' });
      continue;
    }
    try {
      const sized = enlarge(op, sample);
      if (sized) rows.push(timeOp(op, sample.label, sized, milliseconds));
      else skipped.push({ op: op.name, reason: 'its sample cannot be made larger' });
    } catch (error) {
      if (!(error instanceof RetuneError)) throw error;
      skipped.push({ op: op.name, reason: error.message.slice(0, 120) });
    }
  }
  return { rows, skipped };
}

/** The largest multiple of `sample` that is not more than enough; undefined when none is worth timing. */
export function enlarge(op: AnyOp, sample: Sample<Params>): SizedSample | undefined {
  const fixed = fixedInput(op, sample);
  let best: SizedSample | undefined;
  for (let factor = 2; ; factor = Math.ceil(factor * 1.1)) {
    const sized = scaled(op, sample, factor, fixed);
    if (!sized || sized.cost.flops > enough.flops) break;
    const bytes = sized.cost.bytesRead + sized.cost.bytesWritten;
    if (bytes > enough.bytes || factor > enough.bytes) break;
    if (bytes >= leastBytes || sized.cost.flops >= enough.flops / 64) best = sized;
  }
  return best;
}

/** The input that keeps its size: a generator's state, or the one without which the op takes the rest. */
function fixedInput(op: AnyOp, sample: Sample<Params>): number {
  if (op.traits.random) return 0;
  const candidates = [-1, ...sample.inputs.keys()];
  return candidates.find((i) => scaled(op, sample, 2, i) !== undefined) ?? -1;
}

function scaled(
  op: AnyOp,
  sample: Sample<Params>,
  factor: number,
  fixed: number,
): SizedSample | undefined {
  const inputs = sample.inputs.map((input, i) =>
    i === fixed ? input : { ...input, shape: multiply(input.shape, factor) },
  );
  const params = Object.fromEntries(
    Object.entries(sample.params).map(([key, value]) =>
      key === 'shape' || key === 'sizes'
        ? [key, multiply(value as number[], factor)]
        : [key, value],
    ),
  );
  try {
    const outputs = op.infer(inputs, params);
    return { inputs, params, cost: op.cost(inputs, outputs, params) };
  } catch (error) {
    if (error instanceof RetuneError) return undefined;
    throw error;
  }
}

function multiply(sizes: readonly number[], factor: number): number[] {
  return sizes.map((size) => (size > 1 ? size * factor : size));
}

function timeOp(
  op: AnyOp,
  label: string,
  { inputs, params, cost }: SizedSample,
  milliseconds: number,
): OpTiming {
  return noGrad(() =>
    scope(() => {
      const tensors = inputs.map(randomTensor);
      const once = (): number => {
        const began = performance.now();
        scope(() => void apply(op, tensors, params));
        return performance.now() - began;
      };
      // Long enough for the engine to replace the first, plain code of a kernel.
      repeat(once, milliseconds / 2);
      return {
        op: op.name,
        sample: label,
        kind: op.traits.class,
        inputs: inputs.map(({ dtype, shape }) => `${dtype}${formatShape(shape)}`).join(' '),
        ms: median(repeat(once, milliseconds)),
        bytes: cost.bytesRead + cost.bytesWritten,
        flops: cost.flops,
      };
    }),
  );
}

function repeat(once: () => number, milliseconds: number): number[] {
  const times: number[] = [];
  const end = performance.now() + milliseconds;
  do times.push(once());
  while (performance.now() < end || times.length < 3);
  return times;
}

function randomTensor({ shape, dtype, range = [-1, 1] }: SampleInput): Tensor {
  const random = mulberry32(7);
  const [low, high] = dtype === 'bool' ? [0, 2] : range;
  const values = Float64Array.from({ length: numElements(shape) }, () => {
    const value = low + random() * (high - low);
    return isFloat(dtype) ? value : Math.floor(value);
  });
  return fromHost(hostTensor(values, shape, dtype));
}

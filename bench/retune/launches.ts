/** The kernels of one training step with their times, and how much work each of them is. */

import type { PlacedStep } from '../../src/compile/placement.ts';
import { bytesPerElement } from '../../src/core/dtype.ts';
import { formatShape } from '../../src/core/shape.ts';
import type { Aval } from '../../src/ir/aval.ts';
import type { Node } from '../../src/ir/graph.ts';
import type { KernelSpec } from '../../src/ir/kernel.ts';
import type { AnyOp, Params } from '../../src/ir/op.ts';
import { currentPhase, isRecomputing } from '../../src/tensor/context.ts';
import type { TensorData } from '../../src/tensor/data.ts';
import { withMode } from '../../src/tensor/mode.ts';
import { PassThroughMode } from '../../src/tensor/pass-through-mode.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { scope } from '../../src/tensor/with-scope.ts';
import type { Variant } from '../driver/protocol.ts';
import type { TrainingJob } from './training-job.ts';

export interface Launch {
  /** Names of the ops it carries out. */
  readonly label: string;
  /** forward, backward, recompute, optimizer, or layout for inserted copies. */
  readonly part: string;
  readonly shapes: string;
  readonly ms: number;
  /** Read and written. */
  readonly bytes: number;
  readonly flops: number;
}

/** Runs one compiled step, timing every launch of its plan. */
export function compiledLaunches(job: TrainingJob, variant: Variant): Launch[] {
  return scope(() => {
    const step = job.compiledStep(variant);
    const plan = step.prepare(job.tokens, job.targets);
    const times = step.profile(job.tokens, job.targets);
    return plan.plan.placement.steps.map((placed, i) => ({
      label: placed.label,
      part: partOf(placed.nodes),
      shapes: shapesOf(placed),
      ms: times[i]?.ms ?? Number.NaN,
      ...workOf(placed),
    }));
  });
}

/** Runs one eager step, timing every op's kernel with what it takes to call it. */
export function eagerLaunches(job: TrainingJob, variant: Variant): Launch[] {
  const launches: Launch[] = [];
  withMode(
    (inner) => new TimingMode(inner, launches),
    () => job.step(variant),
  );
  return launches;
}

class TimingMode extends PassThroughMode {
  readonly #launches: Launch[];

  constructor(inner: ConstructorParameters<typeof PassThroughMode>[0], launches: Launch[]) {
    super(inner);
    this.#launches = launches;
  }

  override run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    const began = performance.now();
    const results = this.inner.run(op, inputs, params, outputs);
    const ms = performance.now() - began;
    if (op.lower.kind !== 'view') {
      const avals = inputs.map((input) => input.aval);
      this.#launches.push({
        label: op.name,
        part: isRecomputing() ? 'recompute' : currentPhase(),
        shapes: shapeList([...avals, ...outputs]),
        ms,
        ...costOf(op, avals, outputs, params),
      });
    }
    return results;
  }
}

interface Work {
  readonly bytes: number;
  readonly flops: number;
}

function workOf(step: PlacedStep): Work {
  const { nodes } = step;
  if (step.kind !== 'launch') return { bytes: step.bytes, flops: 0 };
  const costs = nodes.map((node) => {
    const avals = node.inputs.map((value) => value.aval);
    const outputs = node.outputs.map((value) => value.aval);
    return node.op ? costOf(node.op, avals, outputs, node.params) : { bytes: 0, flops: 0 };
  });
  const flops = costs.reduce((sum, cost) => sum + cost.flops, 0);
  // A fused kernel moves less than its ops would one by one.
  const bytes =
    step.lowered.kind === 'kernel'
      ? kernelBytes(step.lowered.spec)
      : costs.reduce((sum, cost) => sum + cost.bytes, 0);
  return { bytes, flops };
}

function costOf(
  op: AnyOp,
  inputs: readonly Aval[],
  outputs: readonly Aval[],
  params: Params,
): Work {
  const { flops, bytesRead, bytesWritten } = op.cost(inputs, outputs, params);
  return { flops, bytes: bytesRead + bytesWritten };
}

/** Every operand once, however often the kernel reads it. */
function kernelBytes({ space, inputs, outputs }: KernelSpec): number {
  const byOperand = new Map<number, number>();
  for (const { operand, dtype, strides } of [...inputs, ...outputs]) {
    const points = space.reduce((n, size, axis) => (strides[axis] === 0 ? n : n * size), 1);
    const bytes = points * bytesPerElement(dtype);
    byOperand.set(operand, Math.max(bytes, byOperand.get(operand) ?? 0));
  }
  return [...byOperand.values()].reduce((sum, bytes) => sum + bytes, 0);
}

function partOf(nodes: readonly Node[]): string {
  const [first] = nodes;
  if (!first) return 'layout';
  return first.meta.recomputeOf === undefined ? first.meta.phase : 'recompute';
}

function shapesOf(step: PlacedStep): string {
  if (step.kind === 'launch' && step.lowered.kind === 'kernel') {
    return `over ${formatShape(step.lowered.spec.space)}`;
  }
  const { nodes } = step;
  return shapeList(
    nodes.flatMap((node) => [...node.inputs, ...node.outputs].map((value) => value.aval)),
  );
}

function shapeList(avals: readonly Aval[]): string {
  return avals.map(({ shape }) => formatShape(shape)).join(' ');
}

/**
 * Runs a program eagerly or compiled and reports what PyTorch's tests look at: values, how often each op
 * runs in forward and in backward, matrix multiplies in units of one 512-cube, and the bytes that are alive
 * between forward and backward in units of one 512x512 float32 matrix (1 MiB).
 */

import assert from 'node:assert/strict';
import { type CompileOptions, compile } from '../../../src/compile/compile.ts';
import type { Graph, Node, Value } from '../../../src/ir/graph.ts';
import { avalBytes } from '../../../src/ir/aval.ts';
import { grad } from '../../../src/autograd/backward.ts';
import { baseOf } from '../../../src/compile/base-value.ts';
import { currentBackend, liveBytes } from '../../../src/tensor/backend.ts';
import { tensor, toArray } from '../../../src/tensor/factory.ts';
import { forEachTensor } from '../../../src/tensor/structure.ts';
import type { Tensor } from '../../../src/tensor/tensor.ts';
import { scope } from '../../../src/tensor/with-scope.ts';
import type { Execution } from '../../support/executions.ts';
import { countOps } from '../../support/op-counter.ts';

/** FLOPs of one 512-cube matrix multiply. */
export const matmulUnit: number = 2 * 512 ** 3;
/** Bytes of one 512x512 float32 matrix. */
export const mebibyte: number = 512 * 512 * 4;

export interface Program {
  /** Fresh arguments; gradients are taken of those that require them. */
  readonly inputs: () => readonly Tensor[];
  readonly loss: (...inputs: Tensor[]) => Tensor;
}

export interface Measured {
  readonly loss: number[];
  readonly gradients: number[][];
  readonly forward: OpCounts;
  readonly backward: OpCounts;
  /** Bytes that forward leaves for backward, without arguments and the loss. */
  readonly savedBytes: number;
  /** Compiled: bytes of step memory at the peak, as planned and as measured. */
  readonly peakBytes: number;
}

export interface OpCounts {
  readonly count: (op: string) => number;
  /** FLOPs over `matmulUnit`. */
  readonly matmuls: number;
}

/** `options` are of compiled steps. Left out, regions are recomputed as they are written. */
export function measure(
  execution: Execution,
  program: Program,
  options: CompileOptions = { disable: ['planRegions'] },
): Measured {
  return scope(() =>
    execution.name === 'eager' ? measureEager(program) : measureCompiled(program, options),
  );
}

/** Values of every tensor that `step(...args)` returns, in order; what it makes is released. */
export function valuesOf<A extends readonly unknown[]>(
  execution: Execution,
  step: (...args: A) => unknown,
  ...args: A
): number[][] {
  const { run, dispose } = execution.prepare(step);
  try {
    return scope(() => listsOf(run(...args)));
  } finally {
    dispose();
  }
}

export function listsOf(structure: unknown): number[][] {
  const lists: number[][] = [];
  forEachTensor(structure, (x) => lists.push([...toArray(x)]));
  return lists;
}

/** A matrix of fixed values in (-1, 1). */
export function matrix(rows: number, columns: number, seed: number, requiresGrad = true): Tensor {
  const fill = (_: unknown, i: number): number => Math.sin(seed * 17 + i * 0.7);
  const values = Float32Array.from({ length: rows * columns }, fill);
  return tensor(values, { shape: [rows, columns], requiresGrad });
}

/** A vector of fixed values in (-1, 1). */
export function vector(length: number, seed: number, requiresGrad = true): Tensor {
  const fill = (_: unknown, i: number): number => Math.sin(seed * 17 + i * 0.7);
  return tensor(Float32Array.from({ length }, fill), { requiresGrad });
}

/** Two fixed 4x4 matrices that need gradients. */
export const square = (): Tensor[] => [matrix(4, 4, 1), matrix(4, 4, 2)];

/** How often `op` runs in forward and in backward. */
export function counts(
  execution: Execution,
  op: string,
  loss: Program['loss'],
  inputs: Program['inputs'] = square,
): [forward: number, backward: number] {
  const measured = measure(execution, { inputs, loss });
  return [measured.forward.count(op), measured.backward.count(op)];
}

function gradientsOf(loss: Tensor, inputs: readonly Tensor[]): (Tensor | undefined)[] {
  const wanted = inputs.filter((input) => input.requiresGrad);
  return grad(loss, wanted, { allowUnused: true });
}

function measureEager(program: Program): Measured {
  const inputs = program.inputs();
  const before = liveBytes();
  let loss: Tensor | undefined;
  const forward = countOps(() => {
    loss = scope(() => program.loss(...inputs));
  });
  assert.ok(loss);
  const made = loss;
  const savedBytes = liveBytes() - before - aligned(avalBytes(made.aval));
  let gradients: (Tensor | undefined)[] = [];
  const backward = countOps(() => {
    gradients = gradientsOf(made, inputs);
  });
  return {
    loss: [...toArray(made)],
    gradients: listsOf(gradients),
    forward: { count: (op) => forward.count(op), matmuls: forward.flops / matmulUnit },
    backward: { count: (op) => backward.count(op), matmuls: backward.flops / matmulUnit },
    savedBytes,
    peakBytes: Number.NaN,
  };
}

function measureCompiled(program: Program, options: CompileOptions): Measured {
  const inputs = program.inputs();
  const step = compile(
    (...args: Tensor[]) => {
      const loss = program.loss(...args);
      return { loss, gradients: gradientsOf(loss, args) };
    },
    { verify: true, ...options },
  );
  try {
    const { loss, gradients } = step(...inputs);
    const { allocator } = currentBackend();
    const live = allocator.stats().live;
    allocator.resetPeak();
    scope(() => {
      step(...inputs);
    });
    const draws = step.plans[0]?.plan.graph.nodes.some((node) => node.op?.traits.random) ? 64 : 0;
    const peak = allocator.stats().peak - live;
    assert.equal(
      peak,
      (step.plans[0]?.peakBytes ?? 0) + draws,
      'measured peak equals planned peak',
    );
    const graph = step.plans[0]?.plan.graph;
    assert.ok(graph);
    const inBackward = (node: Node): boolean => node.meta.phase !== 'forward';
    return {
      loss: [...toArray(loss)],
      gradients: listsOf(gradients),
      forward: countNodes(graph, (node) => !inBackward(node)),
      backward: countNodes(graph, inBackward),
      savedBytes: savedInGraph(graph, inBackward),
      peakBytes: peak - draws,
    };
  } finally {
    step.dispose();
  }
}

function countNodes(graph: Graph, chosen: (node: Node) => boolean): OpCounts {
  const counts = new Map<string, number>();
  let flops = 0;
  for (const node of graph.nodes) {
    const { op } = node;
    if (!op || !chosen(node)) continue;
    counts.set(op.name, (counts.get(op.name) ?? 0) + 1);
    const inputs = node.inputs.map((value) => value.aval);
    const outputs = node.outputs.map((value) => value.aval);
    flops += op.cost(inputs, outputs, node.params).flops;
  }
  return { count: (op) => counts.get(op) ?? 0, matmuls: flops / matmulUnit };
}

/** Bytes of values that forward nodes make and backward nodes read; memory shared by views once. */
function savedInGraph(graph: Graph, inBackward: (node: Node) => boolean): number {
  const saved = new Set<Value>();
  for (const node of graph.nodes) {
    if (!node.op || !inBackward(node)) continue;
    for (const input of node.inputs) {
      const base = baseOf(input);
      if (base.node.kind === 'op' && !inBackward(base.node)) saved.add(base);
    }
  }
  return [...saved].reduce((sum, value) => sum + aligned(avalBytes(value.aval)), 0);
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / 64) * 64;
}

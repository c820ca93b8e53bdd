/**
 * Random programs: a chain of layers over a matrix, each a few ops with views, in-place changes, random
 * draws and shared weights. A program can be run plainly, under any nesting of checkpoint regions, eagerly
 * or compiled; its loss and gradients must always have the same bits.
 */

import fc from 'fast-check';
import {
  CheckpointPolicy,
  Generator,
  type PolicyFunction,
  type Tensor,
  add,
  addInPlace,
  checkpoint,
  dropout,
  exp,
  grad,
  matmul,
  mul,
  reshape,
  rmsNorm,
  sigmoid,
  sin,
  softmax,
  sum,
  swiglu,
  tanh,
  tensor,
  transpose,
} from '../../src/index.ts';

const ops = [
  'sin',
  'tanh',
  'exp',
  'sigmoid',
  'softmax',
  'norm',
  'matmul',
  'residual',
  'dropout',
  'views',
  'inPlace',
  'gate',
] as const;

export type OpName = (typeof ops)[number];

/** A layer is a list of ops; a block nests layers in a region or runs them plainly. */
export type Block =
  | { readonly kind: 'op'; readonly op: OpName; readonly weight: number }
  | { readonly kind: 'group'; readonly region: boolean; readonly blocks: readonly Block[] };

export interface Program {
  readonly rows: number;
  readonly columns: number;
  readonly seed: number;
  /** Decides what regions keep, where they are given a policy. */
  readonly policySeed: number;
  readonly blocks: readonly Block[];
}

/** Without regions, with regions that keep nothing, or with ones that keep what a random policy says, of which some discard their output; the last kind offloads, too. */
export type Regions = 'none' | 'plain' | 'selective' | 'offloading';

export interface Inputs {
  readonly x: Tensor;
  readonly weights: readonly Tensor[];
  readonly generator: Generator;
}

const weightCount = 2;

export const programs: fc.Arbitrary<Program> = fc.record({
  rows: fc.integer({ min: 1, max: 5 }),
  columns: fc.constantFrom(2, 4, 6, 18),
  seed: fc.nat(1000),
  policySeed: fc.nat(1000),
  blocks: blockLists(3),
});

function blockLists(depth: number): fc.Arbitrary<Block[]> {
  const op = fc.record({
    kind: fc.constant('op' as const),
    op: fc.constantFrom(...ops),
    weight: fc.nat(weightCount - 1),
  });
  if (depth === 0) return fc.array(op, { minLength: 1, maxLength: 3 });
  const group = fc.record({
    kind: fc.constant('group' as const),
    region: fc.boolean(),
    blocks: blockLists(depth - 1),
  });
  return fc.array(fc.oneof({ weight: 3, arbitrary: op }, { weight: 2, arbitrary: group }), {
    minLength: 1,
    maxLength: 4,
  });
}

/** Fresh inputs; equal programs get equal ones. */
export function inputsOf(program: Program): Inputs {
  const { rows, columns, seed } = program;
  const fill = (count: number, phase: number): Float32Array =>
    Float32Array.from({ length: count }, (_, i) => Math.sin(seed + phase + i * 1.618));
  return {
    x: tensor(fill(rows * columns, 0), { shape: [rows, columns], requiresGrad: true }),
    weights: Array.from({ length: weightCount }, (_, k) =>
      tensor(fill(columns * columns, 10 + k), { shape: [columns, columns], requiresGrad: true }),
    ),
    generator: new Generator(seed),
  };
}

/** A pure policy that answers each op in its own way. */
function policyOf({ policySeed }: Program, offloads: boolean): PolicyFunction {
  const answers = [
    CheckpointPolicy.MustSave,
    CheckpointPolicy.PreferSave,
    CheckpointPolicy.MustRecompute,
    CheckpointPolicy.PreferRecompute,
    ...(offloads ? [CheckpointPolicy.MustOffload, CheckpointPolicy.PreferOffload] : []),
  ];
  return ({ op, index }) => {
    let hash = policySeed;
    for (const letter of `${op} ${index}`)
      hash = (Math.imul(hash, 31) + letter.charCodeAt(0)) >>> 0;
    return answers[(hash >>> 3) % answers.length] ?? false;
  };
}

/** Loss and gradients of x and the weights. */
export function runProgram(program: Program, inputs: Inputs, regions: Regions): Tensor[] {
  const { x, weights } = inputs;
  const policy = policyOf(program, regions === 'offloading');
  const region: RunRegion = (body, value, block) => {
    if (regions === 'none') return body(value);
    if (regions === 'plain') return checkpoint(body, [value]);
    const discardOutput = (program.policySeed + JSON.stringify(block).length) % 2 === 1;
    return checkpoint(body, [value], { policy, discardOutput });
  };
  const out = runBlocks(program.blocks, x, inputs, region);
  const loss = sum(mul(out, sin(out)));
  const gradients = grad(loss, [x, ...weights], { allowUnused: true });
  return [loss, ...gradients.filter((gradient) => gradient !== undefined)];
}

type RunRegion = (body: (x: Tensor) => Tensor, x: Tensor, block: Block) => Tensor;

function runBlocks(blocks: readonly Block[], x: Tensor, inputs: Inputs, region: RunRegion): Tensor {
  return blocks.reduce((value, block) => {
    if (block.kind === 'op') return runOp(block.op, value, inputs, block.weight);
    const inner = (v: Tensor): Tensor => runBlocks(block.blocks, v, inputs, region);
    return block.region ? region(inner, value, block) : inner(value);
  }, x);
}

function runOp(op: OpName, x: Tensor, inputs: Inputs, weight: number): Tensor {
  const w = inputs.weights[weight];
  if (!w) throw new Error('no such weight');
  const [rows = 1, columns = 1] = x.shape;
  switch (op) {
    case 'sin':
      return sin(x);
    case 'tanh':
      return tanh(x);
    case 'exp':
      return exp(mul(tanh(x), 0.5));
    case 'sigmoid':
      return mul(sigmoid(x), x);
    case 'softmax':
      return softmax(x, -1);
    case 'norm':
      return rmsNorm(x, sum(w, 0), 1e-5);
    case 'matmul':
      return tanh(matmul(x, w));
    case 'residual':
      return add(x, mul(tanh(matmul(x, transpose(w, 0, 1))), 0.5));
    case 'dropout':
      return dropout(x, 0.25, { generator: inputs.generator });
    case 'views':
      return transpose(reshape(transpose(x, 0, 1), [columns, rows]), 0, 1);
    case 'inPlace': {
      const y = mul(x, 0.5);
      return addInPlace(y, sin(x));
    }
    case 'gate':
      return swiglu(x, matmul(x, w));
  }
}

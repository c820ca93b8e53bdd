/**
 * The op contract. One record says everything anyone asks about an op; passes ask traits, never
 * names. Tensors are positional, everything else is in one plain `params` object; only tensors are
 * traced. `V` is the type of a differentiable value (a Tensor); this layer does not know it.
 */

import type { Layout, Shape } from '../core/shape.ts';
import type { Aval } from './aval.ts';
import type { ComputeType, Expr } from './expr.ts';

export type Params = Readonly<Record<string, unknown>>;

/** The params of ops that take none: one object, so that caches can go by identity. */
export const noParams: Params = Object.freeze({});

/** How dear a value is to compute again, for policies and planners. */
export type RematClass =
  | 'free' // a view or a constant: no arithmetic
  | 'cheap' // about one pass over memory
  | 'costly' // matrix multiply, attention, sort
  | 'never'; // must not run twice: host reads, collectives

/** What kind of work an op is, for policies that choose by class. */
export type OpClass =
  | 'elementwise'
  | 'reduction'
  | 'normalization'
  | 'matmul'
  | 'attention'
  | 'index'
  | 'view'
  | 'random'
  | 'creation'
  | 'barrier';

export interface Traits {
  readonly class: OpClass;
  readonly remat: RematClass;
  /** Draws from the generator state that is its first input. */
  readonly random?: boolean;
  /** Result must be kept by default (router indices, host reads): checkpointing.md S8. */
  readonly keep?: boolean;
  /** Output `out` overwrites input `input`, for each pair: the op is an in-place update. */
  readonly updates?: readonly { readonly input: number; readonly out: number }[];
  /**
   * Identity that marks where a backward reads a value saved by a checkpointed region; its `region`
   * param names the region. Simplification must not look through it before rematerialization.
   */
  readonly savedRead?: boolean;
  /** Identity whose `name` param names its input's value for checkpoint policies. */
  readonly marksName?: boolean;
  /**
   * Moves its input's bytes out of memory (`store`: the output is a token without bytes), or back (`fetch`: from a
   * token). Only in graphs that were planned.
   */
  readonly transfer?: 'store' | 'fetch';
  /**
   * Saved values that stand for many others, such as the log of a softmax's denominator: compression leaves
   * them alone, for an error in one spoils a whole row.
   */
  readonly exactSaves?: readonly SaveName[];
  /** Input `input` may share memory with output `out` when it dies here. Default for kernels: all pairs of equal aval. */
  readonly inPlace?: readonly { readonly input: number; readonly out: number }[];
}

/** Work of one execution. FLOPs count a multiply-add as two (PyTorch's flop counter). */
export interface Cost {
  readonly flops: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

/** Names of args or of outputs (`out`, or `out0`, `out1`, ...) that an op's vjp needs. */
export type SaveName = string;

/** What a vjp gets: saved values by name, params, and which inputs want a gradient. */
export interface VjpContext<V, P> {
  readonly params: P;
  /** The saved value; each is unpacked exactly once per backward, before the vjp runs. */
  readonly saved: (name: SaveName) => V;
  readonly inputs: readonly Aval[];
  readonly outputs: readonly Aval[];
  readonly needs: (input: number) => boolean;
}

/**
 * Gradients of the inputs from those of the outputs. A cotangent is undefined when nothing flows
 * into that output; a result may be undefined where no gradient is needed or it is zero.
 */
export type Vjp<V, P> = (
  cotangents: readonly (V | undefined)[],
  context: VjpContext<V, P>,
) => readonly (V | undefined)[];

/** A kernel input in terms of logical axes: for each space axis the operand's axis, or -1 to broadcast. */
export interface TemplateInput {
  readonly operand: number;
  readonly axes: readonly number[];
  /** For accesses that a plain axis map cannot say; such an input is never fused through. */
  readonly relayout?: (layout: Layout, shape: Shape) => Layout;
}

/** A kernel output: for each space axis the output's axis, or -1 on reduced axes. */
export interface TemplateOutput {
  readonly axes: readonly number[];
  readonly expr: Expr;
  /** For outputs whose storage is addressed in another split than their logical axes; never fused through. */
  readonly relayout?: (layout: Layout, shape: Shape) => Layout;
}

/**
 * A KernelSpec before layouts are known. Expression inputs count `inputs`; template output k is the
 * op's output k.
 */
export interface KernelTemplate {
  readonly space: Shape;
  readonly reduced: readonly number[];
  readonly inputs: readonly TemplateInput[];
  readonly outputs: readonly TemplateOutput[];
  readonly scalars?: readonly { readonly type: ComputeType; readonly value: number }[];
}

/** An operand of a routine: where it lies and what it is. */
export interface Operand {
  readonly aval: Aval;
  readonly layout: Layout;
}

/** A WebAssembly kernel of a routine; see codegen/wasm for the calling convention. */
export interface WasmRoutine {
  /** Equal keys mean equal bytes. */
  readonly key: string;
  /** Module bytes: imports env.memory, may import env.gemm; exports `main(args, thread, threads)`. */
  readonly build: () => Uint8Array;
  /**
   * Bytes of scratch memory per thread. The slot after the last operand holds its address: thread t's
   * part begins t * scratchBytes after it. The address is a multiple of 64; the contents are arbitrary.
   */
  readonly scratchBytes?: number;
  /** Further slots after operands and scratch: integers or float32 values. */
  readonly values?: readonly { readonly type: ComputeType; readonly value: number }[];
  /** Share of work that is worth one thread; fewer units run on fewer threads. */
  readonly parallelUnits?: number;
  /** Text of the ArgumentError when the kernel traps, which it does for bad values of its inputs only. */
  readonly trap?: string;
}

/** A matrix multiply the backend may hand to the host's BLAS: C[b] = alpha op(A[b]) op(B[b]) + beta C[b]. */
export interface GemmCall {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transA: boolean;
  readonly transB: boolean;
  readonly lda: number;
  readonly ldb: number;
  readonly ldc: number;
  readonly alpha: number;
  readonly beta: number;
  /** Element offsets of A, B, C for each batch entry, relative to the operand pointers. */
  readonly batches: readonly { readonly a: number; readonly b: number; readonly c: number }[];
  /** Operand numbers of A, B, C. */
  readonly operands: readonly [number, number, number];
}

/** Host arrays of one operand in the reference backend: row-major, dense, float64 or integers. */
export type ReferenceArray = Float64Array;

export interface RoutineTarget {
  readonly relaxedSimd: boolean;
  readonly memory64: boolean;
  readonly threads: number;
}

/** Hand-written kernels of an op, one entry per backend; "none because ..." is a value. */
export interface Routine<P> {
  /** Which inputs the kernels read through strides; the others are made dense first. */
  readonly acceptsLayout?: (
    operand: number,
    shape: Shape,
    strides: readonly number[],
    params: P,
  ) => boolean;
  readonly wasm:
    | ((
        inputs: readonly Operand[],
        outputs: readonly Operand[],
        params: P,
        target: RoutineTarget,
      ) => WasmRoutine | { readonly gemm: GemmCall })
    | { readonly none: string };
  readonly wgsl: { readonly none: string };
  readonly reference: (
    inputs: readonly ReferenceArray[],
    outputs: readonly ReferenceArray[],
    avals: { readonly inputs: readonly Aval[]; readonly outputs: readonly Aval[] },
    params: P,
  ) => void;
}

/** How an op happens on a machine. */
export type Lowering<P> =
  | {
      readonly kind: 'kernel';
      readonly template: (
        inputs: readonly Aval[],
        outputs: readonly Aval[],
        params: P,
      ) => KernelTemplate;
    }
  | {
      /** The output lies inside input 0's storage; undefined when a copy is needed first. */
      readonly kind: 'view';
      readonly view: (input: Aval, layout: Layout, output: Aval, params: P) => Layout | undefined;
    }
  | { readonly kind: 'routine'; readonly routine: Routine<P> }
  /** No code: the backend copies bytes between its memory and a place outside. */
  | { readonly kind: 'transfer' };

/** One generated example of an op's use, for conformance, gradient checks and benchmarks. */
export interface Sample<P> {
  readonly label: string;
  readonly inputs: readonly SampleInput[];
  readonly params: P;
}

export interface SampleInput {
  readonly shape: Shape;
  readonly dtype: Aval['dtype'];
  /** Uniform values in [low, high); integers for integer dtypes. Default -1..1. */
  readonly range?: readonly [number, number];
}

export interface Op<V, P> {
  readonly name: string;
  /** Names of the tensor inputs; a trailing '...name' takes any number. */
  readonly args: readonly string[];
  readonly traits: Traits;
  /** Avals of the outputs; throws ShapeError or DTypeError that names the function and both sides. */
  readonly infer: (inputs: readonly Aval[], params: P) => readonly Aval[];
  readonly cost: (inputs: readonly Aval[], outputs: readonly Aval[], params: P) => Cost;
  /** Depends on params, and on which inputs want a gradient, where the vjp then needs less. */
  readonly saves:
    | readonly SaveName[]
    | ((params: P, needs: (input: number) => boolean) => readonly SaveName[]);
  readonly vjp: Vjp<V, P> | 'nondifferentiable';
  /**
   * The op written in other, twice differentiable ops. Required when vjp uses ops that have no vjp of
   * their own: with createGraph the engine differentiates this instead. Needs all inputs saved.
   */
  readonly compose?: (inputs: readonly V[], params: P) => readonly V[];
  readonly lower: Lowering<P>;
  readonly samples: readonly Sample<P>[];
}

/** An op whose value and params types do not matter to the caller. */
// biome-ignore lint/suspicious/noExplicitAny: Op is contravariant in P; `any` is the only upper bound.
export type AnyOp = Op<any, any>;

/** Number of bytes moved and no arithmetic: the cost of pure data movement. */
export function movementCost(
  inputs: readonly Aval[],
  outputs: readonly Aval[],
  bytes: (a: Aval) => number,
): Cost {
  return {
    flops: 0,
    bytesRead: inputs.reduce((sum, a) => sum + bytes(a), 0),
    bytesWritten: outputs.reduce((sum, a) => sum + bytes(a), 0),
  };
}

/** What `op` saves when gradients are wanted of the inputs that `needs` names (default: of all). */
export function savedNames(
  op: AnyOp,
  params: unknown,
  needs: (input: number) => boolean = () => true,
): readonly SaveName[] {
  return typeof op.saves === 'function' ? op.saves(params, needs) : op.saves;
}

/** Whether `name` in `saves` is an output, and which; undefined for an input's name. */
export function savedOutputIndex(name: SaveName): number | undefined {
  if (name === 'out') return 0;
  const match = /^out(\d+)$/.exec(name);
  return match ? Number(match[1]) : undefined;
}

/**
 * Text that is equal exactly when two params objects (of one op) are; unlike JSON it tells -0, infinities
 * and NaN apart. Every eager op asks for it, so what params mostly are, flat, goes without JSON.
 */
export function paramsKey(params: Params): string {
  let key = '{';
  for (const name in params) {
    const value = params[name];
    if (value !== undefined) key += `${key === '{' ? '' : ', '}${name}: ${valueKey(value)}`;
  }
  return `${key}}`;
}

function valueKey(value: unknown): string {
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value);
  if (typeof value === 'boolean') return String(value);
  if (!isNumberList(value)) return JSON.stringify(value, exactNumbers);
  let key = '';
  for (const item of value) key += `${key === '' ? '' : ', '}${Object.is(item, -0) ? '-0' : item}`;
  return `[${key}]`;
}

function isNumberList(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'number');
}

function exactNumbers(_: string, value: unknown): unknown {
  if (typeof value !== 'number') return value;
  if (value === 0) return Object.is(value, -0) ? '-0' : 0;
  return Number.isFinite(value) ? value : String(value);
}

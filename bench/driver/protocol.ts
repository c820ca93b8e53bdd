/**
 * What the driver and its servers say to each other: a JSON request a line on the server's standard
 * input, answered on its standard output by a record separator (U+001E) and a line of JSON (RFC 7464).
 * Output without the separator is not an answer and is ignored.
 */

import type { BenchConfig } from '../configs.ts';
import type { Materials } from '../materials.ts';

export const recordSeparator = '\x1e';

/**
 * What is kept for backward: all; the inputs of layers (`full`); the results of matrix products but for every second, and of
 * attention (`op`, torchtitan's choice); or what fits into a budget, such as `budget:50%` or `budget:79MiB` of step memory
 * (PyTorch: the share is its activation_memory_budget, and there are no bytes). After a `+` comes what the planner may do
 * besides: `budget:50%+bf16`, `+fp8`, `+int8` or `+offload`.
 */
export type Checkpointing = 'none' | 'full' | 'op' | `budget:${string}`;

/** How a training step is run. */
export interface Variant {
  readonly compiled: boolean;
  readonly checkpointing: Checkpointing;
}

/** One of the four layouts of C = op(A) op(B), all matrices square. */
export interface Product {
  readonly size: number;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
}

export interface Requests {
  /** What the server is; sets its threads. */
  facts: { readonly threads: number };
  load: {
    readonly config: BenchConfig;
    readonly materials: Materials;
    /** PyTorch only: AdamW(fused=True). */
    readonly fusedOptimizer?: boolean;
  };
  /** Goes back to the first weights and runs `steps` steps of the variant, compiling it if need be. */
  start: { readonly variant: Variant; readonly steps: number };
  /** Runs `warm` untimed steps, then `steps` timed ones. */
  steps: { readonly variant: Variant; readonly warm: number; readonly steps: number };
  /** Runs one step and measures the memory it takes. */
  memory: { readonly variant: Variant };
  matmul: Product & { readonly threads: number; readonly warm: number; readonly steps: number };
  /** Retune only: every op record on its scaled samples. */
  ops: { readonly milliseconds: number };
}

export interface Timing {
  /** Of each timed step. */
  readonly ms: readonly number[];
  /** Of the server, all threads, warm steps included. */
  readonly cpuSeconds: number;
}

export interface OpTiming {
  readonly op: string;
  readonly sample: string;
  readonly kind: string;
  /** Shapes of the inputs as they were run. */
  readonly inputs: string;
  readonly ms: number;
  readonly bytes: number;
  readonly flops: number;
}

export interface Answers {
  facts: Readonly<Record<string, string>>;
  load: { readonly parameters: number };
  start: { readonly losses: readonly number[]; readonly firstStepSeconds: number };
  steps: Timing;
  memory: {
    /** Most that was held at a time besides parameters, optimizer state and the batch. */
    readonly peakBytes: number;
    /** What the plan says of the same; compiled Retune only. */
    readonly plannedBytes?: number;
  };
  matmul: Timing;
  ops: {
    readonly rows: readonly OpTiming[];
    /** Samples that were not timed, and why. */
    readonly skipped: readonly { readonly op: string; readonly reason: string }[];
  };
}

export type Command = keyof Requests;
export type RequestOf<C extends Command> = Requests[C];
export type AnswerOf<C extends Command> = Answers[C];

export type Reply<C extends Command> =
  | ({ readonly ok: true } & AnswerOf<C>)
  | { readonly ok: false; readonly error: string };

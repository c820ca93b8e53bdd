/**
 * The memory trace: one JSON document, read by the viewer and by anyone else (docs/internals/memory-trace.md).
 * This file holds types only and imports nothing.
 */

/** Parts of a step, as ops see them. */
export type TracePhase = 'forward' | 'backward' | 'optimizer';

export type TraceCategory =
  | 'parameter'
  | 'gradient'
  | 'optimizer'
  | 'activation'
  | 'temporary'
  | 'input';

/** A piece of memory from its allocation to its end. */
export interface TraceBlock {
  /** Counts up from 0 in the order of allocation. */
  readonly id: number;
  readonly bytes: number;
  /** What it was last used as. */
  readonly category: TraceCategory;
  /** First and last event during which it is alive; -1 as first: alive before the trace, `events.length` as last: alive after it. */
  readonly first: number;
  readonly last: number;
  /** The op that was running, '' for none; the module being called; the phase. */
  readonly op: string;
  readonly module: string;
  readonly phase: TracePhase;
  /** In a compiled step: shape and dtype of the value it was made for, and whether that was computed again. */
  readonly value?: string;
  readonly recomputed?: boolean;
  /** In a compiled step: the value waits for backward outside memory or in fewer bits; or this is memory that it was brought back to. */
  readonly waits?: 'offloaded' | 'compressed';
  /** In a compiled step: byte offset in the arena. */
  readonly offset?: number;
}

/** Something that happened: an allocation or a free in eager code, a launch of a compiled step. */
export interface TraceEvent {
  /** Bytes in use after it (for a launch: during it). */
  readonly live: number;
  readonly op: string;
  readonly module: string;
  readonly phase: TracePhase;
  /** Milliseconds from the start of the trace; for launches of a compiled step 0, they are planned, not timed. */
  readonly time: number;
}

export interface MemoryTrace {
  readonly format: 'retune-memory-trace-v1';
  /** In words: what was traced. */
  readonly title: string;
  readonly execution: 'eager' | 'compiled';
  readonly backend: string;
  /** Bytes in use before the trace, by category. */
  readonly before: Readonly<Record<TraceCategory, number>>;
  /** Highest `live`, the event it was reached at, and bytes of each category then. */
  readonly peak: {
    readonly bytes: number;
    readonly event: number;
    readonly byCategory: Readonly<Record<TraceCategory, number>>;
  };
  readonly events: readonly TraceEvent[];
  readonly blocks: readonly TraceBlock[];
}

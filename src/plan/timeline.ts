/** A sequence laid out in time: what is alive when, and the gaps between the uses of each storage. */

import { invariant } from '../core/errors.ts';
import type { Problem } from './problem.ts';

export class Timeline {
  readonly problem: Problem;
  readonly sequence: Int32Array;
  /** Per position: bytes alive, workspace included. */
  readonly live: Float64Array;
  readonly peak: number;
  readonly peakAt: number;
  /**
   * Per storage, gaps `gapStart[s]` to `gapStart[s + 1]`, in order: held unread from the position `from` (a run or a
   * read) to the read at `to`; results to the length of the sequence.
   */
  readonly gapStart: Int32Array;
  readonly from: Int32Array;
  readonly to: Int32Array;

  constructor(problem: Problem, sequence: Int32Array) {
    const { inputStart, inputs, outputStart, storages, isResult, bytes, workspace } = problem;
    this.problem = problem;
    this.sequence = sequence;
    const n = sequence.length;
    const count = new Int32Array(storages + 1);
    for (let s = 0; s < storages; s++) count[s + 1] = isResult[s] as number;
    for (let i = 0; i < n; i++) {
      const op = sequence[i] as number;
      for (let j = inputStart[op] as number; j < (inputStart[op + 1] as number); j++) {
        const s = (inputs[j] as number) + 1;
        count[s] = (count[s] as number) + 1;
      }
    }
    for (let s = 0; s < storages; s++)
      count[s + 1] = (count[s + 1] as number) + (count[s] as number);
    this.gapStart = count;
    const fill = count.slice();
    this.from = new Int32Array(count[storages] as number);
    this.to = new Int32Array(count[storages] as number);
    const last = new Int32Array(storages).fill(-1);
    const delta = new Float64Array(n + 2);
    const add = (at: number, size: number) => {
      delta[at] = (delta[at] as number) + size;
    };
    const close = (s: number, at: number) => {
      const gap = fill[s] as number;
      const from = last[s] as number;
      this.from[gap] = from;
      this.to[gap] = at;
      fill[s] = gap + 1;
      last[s] = at;
      // Held after `from`, where it is counted already.
      add(from + 1, bytes[s] as number);
      add(at + 1, -(bytes[s] as number));
    };
    for (let i = 0; i < n; i++) {
      const op = sequence[i] as number;
      for (let j = inputStart[op] as number; j < (inputStart[op + 1] as number); j++) {
        const s = inputs[j] as number;
        invariant((last[s] as number) >= 0, () => `op ${op} runs before its input ${s}`);
        close(s, i);
      }
      for (let s = outputStart[op] as number; s < (outputStart[op + 1] as number); s++) {
        // Made again while it is still held by a later read: not possible, reads are after the last run.
        last[s] = i;
        add(i, bytes[s] as number);
        add(i + 1, -(bytes[s] as number));
      }
    }
    for (let s = 0; s < storages; s++) if (isResult[s]) close(s, n);
    this.live = new Float64Array(n);
    let sum = 0;
    let peak = 0;
    let peakAt = -1;
    for (let i = 0; i < n; i++) {
      sum += delta[i] as number;
      const now = sum + (workspace[sequence[i] as number] as number);
      this.live[i] = now;
      if (now > peak) {
        peak = now;
        peakAt = i;
      }
    }
    this.peak = peak;
    this.peakAt = peakAt;
  }

  /** The gap of `s` that a position lies in or ends; -1 when it is not held there. */
  gapAt(s: number, at: number): number {
    const end = this.gapStart[s + 1] as number;
    for (let gap = this.gapStart[s] as number; gap < end; gap++) {
      if ((this.to[gap] as number) >= at) return (this.from[gap] as number) < at ? gap : -1;
    }
    return -1;
  }

  /** Ops to run before position `at` so that `s` is there, in graph order; undefined when one runs only once. */
  runsFor(s: number, at: number): number[] | undefined {
    const { producer, inputStart, inputs, once } = this.problem;
    const list = [producer[s] as number];
    const seen = new Set(list);
    for (let i = 0; i < list.length; i++) {
      const op = list[i] as number;
      if (once[op]) return undefined;
      for (let j = inputStart[op] as number; j < (inputStart[op + 1] as number); j++) {
        const input = inputs[j] as number;
        const made = producer[input] as number;
        if (seen.has(made) || this.gapAt(input, at) >= 0) continue;
        seen.add(made);
        list.push(made);
      }
    }
    return list.sort((a, b) => a - b);
  }

  /** The sequence with `ops` run before position `at`. */
  with(ops: readonly number[], at: number): Int32Array {
    const longer = new Int32Array(this.sequence.length + ops.length);
    longer.set(this.sequence.subarray(0, at));
    longer.set(ops, at);
    longer.set(this.sequence.subarray(at), at + ops.length);
    return longer;
  }
}

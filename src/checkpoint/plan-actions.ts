/** What a compiled step's planner may do beside keeping values and computing them again (checkpointing.md P3). */

import type { SaveFormat } from '../ir/graph.ts';

export interface PlanActions {
  /**
   * Whether values may wait for backward in a file (cpu backend) or in host memory (backends with memory of their own). The
   * bits of results stay the same.
   */
  readonly offload?: boolean | OffloadAction;
  /** Whether values may wait in fewer bits, and in which format. Gradients are then those of the rounded values. */
  readonly compress?: SaveFormat;
}

export interface OffloadAction {
  /** The folder to make a folder in; default RETUNE_OFFLOAD_DIR or the system's for temporary files. */
  readonly dir?: string;
  /** Assumed speed of the place, each way. Default: that of a file in the page cache, or measured with `cost: 'measured'`. */
  readonly bytesPerSecond?: number;
}

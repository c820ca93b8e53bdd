/**
 * Which backward is running. Checkpointed regions recompute once per backward (checkpointing.md C2) and
 * drop what was not consumed when it ends; inside a group, once for all backwards of the group.
 */

import { AutogradError } from '../core/errors.ts';

/** One backward, or one group of them. */
export interface BackwardPass {
  readonly group: boolean;
  /** Whether what is read may be read again by a later backward. */
  readonly retains: boolean;
  /** Run when the pass is over. */
  readonly atEnd: Set<() => void>;
}

const running: BackwardPass[] = [];
let group: BackwardPass | undefined;

/** Starts a backward; the returned function ends it. */
export function beginBackward(retains: boolean): () => void {
  const pass: BackwardPass = { group: false, retains, atEnd: new Set() };
  running.push(pass);
  return () => {
    running.splice(running.lastIndexOf(pass), 1);
    finish(pass);
  };
}

/** The group if one is open, else the innermost running backward; undefined outside. */
export function currentPass(): BackwardPass | undefined {
  return group ?? running[running.length - 1];
}

/**
 * Runs `body`, in which several backwards over disjoint parts of a graph share one recompute per region
 * (torch.utils.checkpoint.GraphExecGroup). Groups do not nest.
 */
export function recomputeGroup<T>(body: () => T): T {
  if (group) {
    throw new AutogradError(
      'recomputeGroup: groups cannot be nested (got an open one). Use one group.',
    );
  }
  const pass: BackwardPass = { group: true, retains: true, atEnd: new Set() };
  group = pass;
  try {
    return body();
  } finally {
    group = undefined;
    finish(pass);
  }
}

function finish(pass: BackwardPass): void {
  for (const callback of pass.atEnd) callback();
  pass.atEnd.clear();
}

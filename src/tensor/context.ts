/** Ambient state of the running program: gradient mode, phase, module path, checkpoint regions. */

import type { CheckpointPolicy, Phase } from '../ir/graph.ts';

let gradEnabled = true;
let phase: Phase = 'forward';
const modulePath: string[] = [];
const regionPath: number[] = [];
let discarding = false;
let markedName: string | undefined;
let policy: CheckpointPolicy | undefined;
let recomputing = false;

export function isGradEnabled(): boolean {
  return gradEnabled;
}

function withGrad<T>(enabled: boolean, body: () => T): T {
  const before = gradEnabled;
  gradEnabled = enabled;
  try {
    return body();
  } finally {
    gradEnabled = before;
  }
}

/** Runs `body` without recording for backward (torch.no_grad). `body` must be synchronous. */
export function noGrad<T>(body: () => T): T {
  return withGrad(false, body);
}

/** Runs `body` with recording on, inside noGrad too (torch.enable_grad). */
export function enableGrad<T>(body: () => T): T {
  return withGrad(true, body);
}

/** torch.set_grad_enabled as a scope. */
export function setGradEnabled<T>(enabled: boolean, body: () => T): T {
  return withGrad(enabled, body);
}

export function currentPhase(): Phase {
  return phase;
}

export function withPhase<T>(value: Phase, body: () => T): T {
  const before = phase;
  phase = value;
  try {
    return body();
  } finally {
    phase = before;
  }
}

/** Dotted path of the module being called; '' at top level. */
export function currentModule(): string {
  return modulePath[modulePath.length - 1] ?? '';
}

/** Runs `body` as part of the module at `path` (the full dotted path). */
export function withModule<T>(path: string, body: () => T): T {
  modulePath.push(path);
  try {
    return body();
  } finally {
    modulePath.pop();
  }
}

export function currentRegions(): readonly number[] {
  return regionPath;
}

/** Runs `body` inside `region`; `discards`: what the region makes is kept by nobody (checkpointing.md S7). */
export function withRegion<T>(region: number, body: () => T, discards = false): T {
  const before = discarding;
  // What an outermost region hands on is for that one to say.
  if (regionPath.length === 0) discarding = discards;
  regionPath.push(region);
  try {
    return body();
  } finally {
    regionPath.pop();
    discarding = before;
  }
}

/** Whether the outermost region being run discards its outputs. */
export function discardsOutput(): boolean {
  return discarding;
}

/** Runs `body` as if no region were active: a recompute starts afresh (checkpointing.md C3). */
export function withoutRegions<T>(body: () => T): T {
  const before = regionPath.splice(0);
  try {
    return body();
  } finally {
    regionPath.splice(0, regionPath.length, ...before);
  }
}

/** The checkpointName mark for ops applied inside `body`. */
export function withName<T>(name: string | undefined, body: () => T): T {
  const before = markedName;
  markedName = name;
  try {
    return body();
  } finally {
    markedName = before;
  }
}

export function currentName(): string | undefined {
  return markedName;
}

/** Runs `body`, whose ops are traced with this decision of a checkpoint policy. */
export function withPolicy<T>(value: CheckpointPolicy | undefined, body: () => T): T {
  const before = policy;
  policy = value;
  try {
    return body();
  } finally {
    policy = before;
  }
}

export function currentPolicy(): CheckpointPolicy | undefined {
  return policy;
}

/** Whether a checkpointed region is being run again for its backward (checkpointing.md C8). */
export function isRecomputing(): boolean {
  return recomputing;
}

export function whileRecomputing<T>(body: () => T): T {
  const before = recomputing;
  recomputing = true;
  try {
    return body();
  } finally {
    recomputing = before;
  }
}

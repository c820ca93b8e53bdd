/** What is alive when a step's memory is highest. */

import { formatBytes } from '../core/bytes.ts';
import { formatAval } from '../ir/aval.ts';
import type { LoweredGraph } from './pipeline.ts';

/** A piece of arena memory that is in use at the peak. */
export interface AliveBuffer {
  readonly bytes: number;
  /** The op that made the value it was placed for, its module, shape and dtype. */
  readonly op: string;
  readonly module: string;
  readonly aval: string;
  /** Made by repeating a node of the forward. */
  readonly recomputed: boolean;
}

export interface Peak {
  readonly peakBytes: number;
  /** Label and module of the launch at which the peak is reached. */
  readonly op: string;
  readonly module: string;
  readonly phase: string;
  /** Largest first. */
  readonly alive: readonly AliveBuffer[];
}

export function peakOf({ placement, memory, peakBytes }: LoweredGraph): Peak {
  const { peakStep } = memory;
  const step = placement.steps[peakStep];
  const meta = step?.nodes[0]?.meta;
  const alive = placement.buffers
    .filter(
      (buffer) => buffer.kind === 'arena' && buffer.first <= peakStep && buffer.last >= peakStep,
    )
    .map(
      ({ bytes, value }): AliveBuffer => ({
        bytes,
        op: value.node.op?.name ?? value.node.label,
        module: value.node.meta.module,
        aval: formatAval(value.aval),
        recomputed: value.node.meta.recomputeOf !== undefined,
      }),
    )
    .toSorted((a, b) => b.bytes - a.bytes);
  return {
    peakBytes,
    op: step?.label ?? '',
    module: meta?.module ?? '',
    phase: meta?.phase ?? '',
    alive,
  };
}

/** One line: where the peak is and the largest of what is alive there. */
export function describePeak(peak: Peak, most = 5): string {
  const place = peak.module === '' ? peak.op : `${peak.op} of ${peak.module}`;
  const largest = peak.alive.slice(0, most).map((buffer) => {
    const where = buffer.module === '' ? '' : ` of ${buffer.module}`;
    return `${formatBytes(buffer.bytes)} ${buffer.op}${where} ${buffer.aval}`;
  });
  const rest = peak.alive.slice(most);
  const others = rest.reduce((sum, buffer) => sum + buffer.bytes, 0);
  if (rest.length > 0) largest.push(`${formatBytes(others)} in ${rest.length} more`);
  return `at ${place} in ${peak.phase}: ${largest.join(', ')}`;
}

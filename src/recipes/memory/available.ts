/** How much memory training may hold: what the system and the backend have left, less a margin. */

import { freemem } from 'node:os';
import { formatBytes } from '../../core/bytes.ts';
import { definite } from '../../core/errors.ts';
import { currentBackend } from '../../tensor/backend.ts';

export interface AvailableMemory {
  /** Bytes that training may hold, beside what the process holds already. */
  readonly bytes: number;
  /** Where the number comes from, for people. */
  readonly from: string;
}

/** Something that bounds what this process can still take. */
export interface MemoryReading {
  /** For people: `the system has free`. */
  readonly what: string;
  readonly bytes: number;
}

/**
 * The part that is left alone: for kernels and their scratch memory, holes between blocks, the heap of the
 * engine, and copies of tensors that are being saved.
 */
const marginShare = 0.1;
const marginBytes = 128 * 2 ** 20;

/** The smallest of the readings less a margin: a tenth, at least 128 MiB, but never more than half. */
export function availableMemory(
  readings: readonly MemoryReading[] = readMemory(),
): AvailableMemory {
  const { what, bytes } = definite(readings.toSorted((a, b) => a.bytes - b.bytes)[0]);
  const left = Math.max(0, bytes);
  const margin = Math.min(left / 2, Math.max(marginBytes, left * marginShare));
  return {
    bytes: Math.floor(left - margin),
    from: `${what} ${formatBytes(left)}, less a margin of ${formatBytes(Math.ceil(margin))}`,
  };
}

/** What the system, a container around this process and the current backend say. */
export function readMemory(): MemoryReading[] {
  const { allocator, name } = currentBackend();
  const readings = [
    { what: 'the system has free', bytes: freemem() },
    { what: 'the system leaves this process', bytes: process.availableMemory() },
  ];
  const limit = process.constrainedMemory();
  // Without a limit it is 0, or a number beyond any machine.
  if (limit > 0 && Number.isSafeInteger(limit)) {
    const bytes = limit - process.memoryUsage.rss();
    readings.push({ what: 'the limit on this process leaves', bytes });
  }
  const { capacity } = allocator;
  if (Number.isFinite(capacity)) {
    readings.push({
      what: `the ${name} backend can reach`,
      bytes: capacity - allocator.stats().live,
    });
  }
  return readings;
}

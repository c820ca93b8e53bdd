/**
 * Narrow places of the forward order: instants between two ops at which few bytes are still to be read by
 * forward ops (in a transformer, the residual stream). Values that cross one let a stretch of the forward
 * run again without anything before it. This is structure to try, no more: plans are judged by their peak.
 */

import type { Problem } from './problem.ts';

/** Per narrow place, in order: the storages that cross it. */
export function narrowPlaces(problem: Problem): number[][] {
  const { boundary, storages, bytes, producer, useStart, uses } = problem;
  if (boundary < 4) return [];
  const lastForward = new Int32Array(storages).fill(-1);
  const delta = new Float64Array(boundary + 1);
  for (let s = 0; s < storages; s++) {
    for (let i = useStart[s] as number; i < (useStart[s + 1] as number); i++) {
      const op = uses[i] as number;
      if (op < boundary) lastForward[s] = op;
    }
    const last = lastForward[s] as number;
    const first = producer[s] as number;
    // What is read all along (masks, tables) would make every place look wide.
    if (last - first > boundary / 3) lastForward[s] = -1;
    else if (last > first) {
      delta[first] = (delta[first] as number) + (bytes[s] as number);
      delta[last] = (delta[last] as number) - (bytes[s] as number);
    }
  }
  const crossing = new Float64Array(boundary);
  let sum = 0;
  for (let op = 0; op < boundary; op++) {
    sum += delta[op] as number;
    crossing[op] = sum;
  }
  const wide = crossing.filter((size) => size > 0).sort();
  const limit = 1.05 * (wide[Math.floor(wide.length / 20)] ?? 0);
  const places: number[][] = [];
  for (let op = 0; op < boundary; op++) {
    if ((crossing[op] as number) > limit || crossing[op] === 0) continue;
    let best = op;
    for (; op < boundary && (crossing[op] as number) <= limit; op++) {
      if ((crossing[op] as number) < (crossing[best] as number)) best = op;
    }
    const place: number[] = [];
    for (let s = 0; s < storages; s++) {
      if ((producer[s] as number) <= best && (lastForward[s] as number) > best) place.push(s);
    }
    if (place.length > 0) places.push(place);
  }
  return places;
}

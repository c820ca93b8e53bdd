/** How a flat number of workgroups is dispatched over the two dimensions WebGPU allows. */

import { UnsupportedError } from '../../core/errors.ts';
import { u32Text, type WgslText } from './text.ts';

/** `maxComputeWorkgroupsPerDimension` of every WebGPU device. */
export const maxWorkgroupsPerDimension = 65535;

export type Workgroups = readonly [number, number, number];

/**
 * The dispatch for `count` workgroups: x alone while it fits, else about equal x and y with
 * x * y >= count. Kernels skip the surplus. Zero workgroups mean that nothing need be dispatched.
 */
export function dispatchSize(count: number): Workgroups {
  if (count <= maxWorkgroupsPerDimension) return [count, count === 0 ? 0 : 1, count === 0 ? 0 : 1];
  const rows = Math.ceil(count / maxWorkgroupsPerDimension);
  if (rows > maxWorkgroupsPerDimension) {
    throw new UnsupportedError(
      `dispatchSize: too many workgroups for one dispatch (got ${count}). Split the kernel.`,
      { count },
    );
  }
  return [Math.ceil(count / rows), rows, 1];
}

/** Writes the entry point with `group` (flat workgroup number) and `local` (flat invocation number) bound. */
export function writeEntryPoint(text: WgslText, invocations: number, body: () => void): void {
  text.line(`@compute @workgroup_size(${invocations})`);
  text.line('fn main(');
  text.line('  @builtin(workgroup_id) groupId: vec3<u32>,');
  text.line('  @builtin(num_workgroups) groupCount: vec3<u32>,');
  text.line('  @builtin(local_invocation_index) local: u32,');
  text.block(')', () => {
    text.line('let group = groupId.y * groupCount.x + groupId.x;');
    body();
  });
}

/** `value mod divisor` and `value div divisor` with the trivial cases left out. */
export function remainderText(value: string, divisor: number): string {
  return divisor === 1 ? '0u' : `${value} % ${u32Text(divisor)}`;
}

export function quotientText(value: string, divisor: number): string {
  return divisor === 1 ? value : `${value} / ${u32Text(divisor)}`;
}

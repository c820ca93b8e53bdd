import type { KernelSpec } from '../../ir/kernel.ts';
import { UnsupportedError } from '../../core/errors.ts';
export function generateKernel(_spec: KernelSpec, _f: unknown): { bytes: Uint8Array } {
  throw new UnsupportedError('kernel generator pending');
}

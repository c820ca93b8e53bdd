/** Inputs of ops whose kernels compute in float32 only; their functions cast before and after. */

import { DTypeError } from '../core/errors.ts';
import { type Aval, formatAval } from '../ir/aval.ts';

/** Throws DTypeError unless every one of `inputs` is float32. */
export function requireFloat32(who: string, inputs: readonly Aval[]): void {
  if (inputs.every((x) => x.dtype === 'float32')) return;
  throw new DTypeError(
    `${who}: the kernel takes float32 only (got ${inputs.map(formatAval).join(', ')}). Cast the inputs, or call the ` +
      'public function, which does.',
    { dtypes: inputs.map((x) => x.dtype) },
  );
}

/** A placement as the steps of a backend's program. */

import { definite } from '../core/errors.ts';
import type { Backend, ProgramStep } from '../runtime/backend.ts';
import type { PlacedBuffer, PlacedOperand, PlacedStep } from './placement.ts';

/** Where a buffer lies: which of the blocks that the program is run on, and the bytes from its start. */
export interface BufferPlace {
  readonly slot: number;
  readonly byteOffset: number;
}

export function programSteps(
  backend: Backend,
  steps: readonly PlacedStep[],
  placeOf: (buffer: PlacedBuffer) => BufferPlace,
): ProgramStep[] {
  const refOf = (operand: PlacedOperand): BufferPlace => {
    const { slot, byteOffset } = placeOf(operand.buffer);
    return { slot, byteOffset: operand.byteOffset + byteOffset };
  };
  return steps.map((step): ProgramStep => {
    const { label } = step;
    if (step.kind !== 'launch') {
      const { kind, parcel, bytes } = step;
      return { kind, parcel, bytes, label, ...refOf(definite(step.operands[0])) };
    }
    const { lowered } = step;
    return {
      executable: backend.prepare(lowered),
      scalars: lowered.kind === 'kernel' ? lowered.scalars : [],
      label,
      operands: step.operands.map(refOf),
    };
  });
}

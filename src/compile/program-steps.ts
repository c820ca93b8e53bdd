/** A placement as the steps of a backend's program. */

import type { Backend, ProgramStep } from '../runtime/backend.ts';
import type { PlacedBuffer, Placement } from './place.ts';

/** Where a buffer lies: which of the blocks that the program is run on, and the bytes from its start. */
export interface BufferPlace {
  readonly slot: number;
  readonly byteOffset: number;
}

export function programSteps(
  backend: Backend,
  placement: Placement,
  placeOf: (buffer: PlacedBuffer) => BufferPlace,
): ProgramStep[] {
  return placement.steps.map(({ lowered, label, operands }) => ({
    executable: backend.prepare(lowered),
    scalars: lowered.kind === 'kernel' ? lowered.scalars : [],
    label,
    operands: operands.map((operand) => {
      const { slot, byteOffset } = placeOf(operand.buffer);
      return { slot, byteOffset: operand.byteOffset + byteOffset };
    }),
  }));
}

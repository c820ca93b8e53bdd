/** The transfer steps of one program: which parcels a run has under way. */

import { ArgumentError, definite } from '../core/errors.ts';
import type { Block } from './allocator.ts';
import type { ProgramStep, TransferStep } from './backend.ts';
import type { BlockTransfer, Parcel } from './transfer.ts';

/** Whether a step moves bytes instead of computing. */
export function isTransfer(step: ProgramStep): step is TransferStep {
  return step.kind !== undefined && step.kind !== 'launch';
}

export class ProgramTransfers {
  readonly #open: () => BlockTransfer;
  readonly #parcels = new Map<number, Parcel>();
  #transfer: BlockTransfer | undefined;

  /** `open` is called once in a run, when the first parcel is stored: a place that failed may be replaced. */
  constructor(open: () => BlockTransfer) {
    this.#open = open;
  }

  /** Does one step. Throws FileError when its copy has failed or the place cannot be opened. */
  perform(step: TransferStep, blocks: readonly Block[]): void {
    const { kind, parcel, slot, byteOffset, bytes } = step;
    const block = blocks[slot];
    if (!block) {
      throw new ArgumentError(
        `Program.run: too few blocks (got ${blocks.length}, no slot ${slot}). Give one block per slot.`,
      );
    }
    const ref = { block, byteOffset };
    if (kind === 'store') {
      this.#transfer ??= this.#open();
      this.#parcels.set(parcel, this.#transfer.store(ref, bytes));
      return;
    }
    const transfer = definite(this.#transfer);
    const stored = definite(this.#parcels.get(parcel));
    if (kind === 'fetch') transfer.load(stored, ref);
    else transfer.wait(stored);
  }

  /** The run is over, successfully or not: nothing is under way any more, and nothing is left outside. */
  end(): void {
    for (const parcel of this.#parcels.values()) this.#transfer?.discard(parcel);
    this.#parcels.clear();
    this.#transfer = undefined;
  }
}

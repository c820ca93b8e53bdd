/** Blocks of the reference backend copied aside as they are: its numbers are not bytes. */

import { invariant } from '../../core/errors.ts';
import type { BlockRef } from '../backend.ts';
import type { BlockTransfer, Parcel } from '../transfer.ts';
import { ReferenceBlock } from './allocator.ts';

interface SlotParcel extends Parcel {
  readonly slots: Float64Array;
}

export class SlotTransfer implements BlockTransfer {
  readonly place = 'host memory';
  readonly canWait = true;
  #held = 0;

  get held(): number {
    return this.#held;
  }

  store({ block, byteOffset }: BlockRef, bytes: number): SlotParcel {
    this.#held += bytes;
    return { bytes, slots: slotsOf(block).slice(byteOffset, byteOffset + bytes) };
  }

  load(parcel: Parcel, { block, byteOffset }: BlockRef): void {
    slotsOf(block).set((parcel as SlotParcel).slots, byteOffset);
  }

  isDone(): boolean {
    return true;
  }

  wait(): void {}

  discard(parcel: Parcel): void {
    this.#held -= parcel.bytes;
  }
}

function slotsOf(block: BlockRef['block']): Float64Array {
  invariant(
    block instanceof ReferenceBlock && block.live,
    () => `transfer: block ${block.id} was freed or is of another backend`,
  );
  return block.slots;
}

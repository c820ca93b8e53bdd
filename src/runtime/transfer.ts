/**
 * Moving the bytes of blocks out of a backend's memory and back, while it computes. A transfer copies:
 * the block stays with its owner, who may free it once the copy is done. What is copied out is a
 * parcel, which is kept until it is discarded.
 */

import { UnsupportedError } from '../core/errors.ts';
import type { BlockRef } from './allocator.ts';

export type TransferPlace =
  /** A file in a folder of this process below `dir`; default: RETUNE_OFFLOAD_DIR, or the system's folder for temporary files. */
  | { readonly to: 'file'; readonly dir?: string | undefined }
  /** The host's memory, for backends whose memory is another one. */
  | { readonly to: 'host' };

/** Bytes outside the backend's memory. Made and read only by its transfer. */
export interface Parcel {
  readonly bytes: number;
}

export interface BlockTransfer {
  /** Where parcels are, for messages and reports. */
  readonly place: string;
  /** Whether `wait` may be called. A backend that cannot block is only asked `isDone`. */
  readonly canWait: boolean;
  /** Bytes in parcels that are not discarded. */
  readonly held: number;
  /** Starts copying out. The bytes must stay as they are, and the block live, until it is done. */
  store(source: BlockRef, bytes: number): Parcel;
  /** Starts copying back, after what was asked before. The target must stay live until it is done. */
  load(parcel: Parcel, target: BlockRef): void;
  /** Whether what was last asked for this parcel is over, successfully or not. */
  isDone(parcel: Parcel): boolean;
  /**
   * Returns when what was last asked for this parcel is done. Throws FileError when a copy failed: it
   * names the place and the remedy.
   */
  wait(parcel: Parcel): void;
  /** Ends the parcel. Its blocks may be freed at once: a copy out is abandoned, a copy back ended. */
  discard(parcel: Parcel): void;
}

/** The error of a backend that is asked for a place it has no way to. */
export function wrongPlace(
  backend: { readonly name: string; readonly transferPlaces: readonly TransferPlace['to'][] },
  place: TransferPlace,
): UnsupportedError {
  const { name, transferPlaces } = backend;
  const why = place.to === 'host' ? "its memory is the host's" : 'its memory has no way to files';
  return new UnsupportedError(
    `offloadActivations: the ${name} backend cannot move values there (got to: ${place.to}): ${why}. ` +
      `Use to: ${transferPlaces.join(' or ')}.`,
    { backend: name, to: place.to, legal: transferPlaces },
  );
}

/**
 * Blocks of a device with memory of its own, copied to the host's through the backend's `read` and
 * `write`. A device that cannot be waited for is read asynchronously: its parcels are done when the
 * event loop has run.
 */

import { invariant } from '../core/errors.ts';
import type { Backend, BlockRef } from './backend.ts';
import type { BlockTransfer, Parcel } from './transfer.ts';

type Memory = Pick<Backend, 'synchronous' | 'read' | 'readAsync' | 'write'>;

class HostParcel implements Parcel {
  readonly bytes: number;
  data: Uint8Array | undefined;
  failure: unknown;

  constructor(bytes: number) {
    this.bytes = bytes;
  }
}

export class HostTransfer implements BlockTransfer {
  readonly place = 'host memory';
  readonly canWait: boolean;
  readonly #memory: Memory;
  #held = 0;

  constructor(memory: Memory) {
    this.#memory = memory;
    this.canWait = memory.synchronous;
  }

  get held(): number {
    return this.#held;
  }

  store(source: BlockRef, bytes: number): Parcel {
    const parcel = new HostParcel(bytes);
    this.#held += bytes;
    if (this.canWait) {
      parcel.data = this.#memory.read(source, bytes);
      return parcel;
    }
    this.#memory.readAsync(source, bytes).then(
      (data) => {
        parcel.data = data;
      },
      (reason: unknown) => {
        parcel.failure = reason;
      },
    );
    return parcel;
  }

  load(parcel: Parcel, target: BlockRef): void {
    const { data, failure } = parcel as HostParcel;
    if (failure !== undefined) throw failure;
    invariant(data, () => 'host transfer: a parcel is loaded that has not arrived');
    this.#memory.write(target, data);
  }

  isDone(parcel: Parcel): boolean {
    const { data, failure } = parcel as HostParcel;
    return data !== undefined || failure !== undefined;
  }

  wait(parcel: Parcel): void {
    const { failure } = parcel as HostParcel;
    if (failure !== undefined) throw failure;
    invariant(this.isDone(parcel), () => 'host transfer: this backend cannot be waited for');
  }

  discard(parcel: Parcel): void {
    (parcel as HostParcel).data = undefined;
    this.#held -= parcel.bytes;
  }
}

/**
 * Offload (docs/internals/offload.md O1, O2): saved tensors wait for backward in a file or in the host's
 * memory. Copies run beside the computation. What one op saved is a group; the latest `depth` groups of
 * the forward are still in memory, and while backward reads a group, the `depth` before it are on their
 * way back. So memory is bounded by `depth`, and is the same in every run. Storage that several saved
 * tensors look into moves once.
 */

import { CompileError, RetuneError, invariant } from '../core/errors.ts';
import type { DType } from '../core/dtype.ts';
import type { Shape } from '../core/shape.ts';
import type { MemoryCategory } from '../runtime/allocator.ts';
import type { Backend } from '../runtime/backend.ts';
import type { BlockTransfer, Parcel, TransferPlace } from '../runtime/transfer.ts';
import { BufferData } from '../tensor/data.ts';
import { type HeldValue, type SaveContext, checkVersion } from '../tensor/saved-tensor.ts';
import { Storage } from '../tensor/storage.ts';
import { Tensor } from '../tensor/tensor.ts';
import { GroupList, type SaveGroup } from './save-groups.ts';
import type { ValueStore } from './value-store.ts';

export interface OffloadSettings {
  readonly place: TransferPlace;
  /** Storages of fewer bytes stay. */
  readonly minBytes: number;
  /** Groups that are in memory beside the one in use. */
  readonly depth: number;
}

export interface OffloadStats {
  /** Saved tensors in the store now, and those of them that stayed in memory by rule. */
  readonly values: number;
  readonly stayed: number;
  /** Bytes copied out and back so far. */
  readonly bytesOut: number;
  readonly bytesIn: number;
  /** Bytes of moved values that are in memory now, and that are at the place. */
  readonly residentBytes: number;
  readonly storedBytes: number;
  /** The most bytes that were at the place at once. */
  readonly peakStoredBytes: number;
  /** Milliseconds that the computation waited for copies. */
  readonly waitMs: number;
}

/** A storage that was moved. */
interface Moved {
  /** Not owned: tells of in-place changes, and is used again while others hold it. */
  readonly origin: Storage;
  readonly version: number;
  readonly category: MemoryCategory;
  readonly parcel: Parcel;
  /** The memory while it is held here: the origin, or a copy that was fetched. */
  storage: Storage | undefined;
  /** Whether the copy has been asked for and not waited for. */
  arriving: boolean;
  handles: number;
}

export interface OffloadHandle {
  readonly shape: Shape;
  readonly dtype: DType;
  /** Where the value lies in its storage; holds the memory only of a value that stays. */
  readonly data: BufferData;
  readonly version: number;
  readonly context: SaveContext;
  readonly moved: Moved | undefined;
  readonly group: SaveGroup<Moved> | undefined;
}

export class OffloadStore implements ValueStore<OffloadHandle> {
  readonly #backend: Backend;
  readonly #settings: OffloadSettings;
  readonly #groups = new GroupList<Moved>();
  readonly #byOrigin = new Map<Storage, Moved>();
  readonly #inMemory = new Set<Moved>();
  #transfer: BlockTransfer | undefined;
  #stats = { values: 0, stayed: 0, bytesOut: 0, bytesIn: 0, peakStoredBytes: 0, waitMs: 0 };
  #residentBytes = 0;
  #storedBytes = 0;

  /** Values of tensors on `backend`. Nothing is opened before the first value is moved. */
  constructor(backend: Backend, settings: OffloadSettings) {
    this.#backend = backend;
    this.#settings = settings;
  }

  get stats(): OffloadStats {
    return {
      ...this.#stats,
      residentBytes: this.#residentBytes,
      storedBytes: this.#storedBytes,
    };
  }

  /** Throws CompileError inside a traced step, FileError when the place fails. */
  put(tensor: Tensor, context: SaveContext): OffloadHandle {
    return this.#put(tensor, context, this.#settings.minBytes);
  }

  /** As `put`, for a value that is moved whatever its size, and is a group of its own. */
  putAlone(tensor: Tensor, context: SaveContext): OffloadHandle {
    this.endGroup();
    const handle = this.#put(tensor, context, 0);
    this.endGroup();
    return handle;
  }

  #put(tensor: Tensor, context: SaveContext, minBytes: number): OffloadHandle {
    const { data, shape, dtype } = tensor;
    if (!(data instanceof BufferData)) throw refuseTrace();
    const { storage } = data;
    const value = { shape, dtype, version: storage.version, context };
    if (storage.bytes < minBytes || data.outlivesStep) {
      this.#stats.values++;
      this.#stats.stayed++;
      return { ...value, data: data.retain(), moved: undefined, group: undefined };
    }
    const moved = this.#moved(storage);
    moved.handles++;
    this.#stats.values++;
    return { ...value, data, moved, group: this.#groups.add(moved) };
  }

  endGroup(): void {
    if (this.#groups.close()) this.#keepOnly(this.#groups.last, this.#settings.depth - 1);
  }

  get(handle: OffloadHandle): Tensor {
    const { moved, group, data, shape, dtype, version, context } = handle;
    checkVersion((moved?.origin ?? data.storage).version, version, context);
    if (!moved || !group) return new Tensor(data.retain(), shape, dtype);
    const { depth } = this.#settings;
    this.#keepOnly(group, depth);
    this.#fetch(moved);
    this.#prefetch(group, depth);
    if (moved.arriving) {
      this.#wait(moved.parcel);
      moved.arriving = false;
    }
    invariant(moved.storage, () => 'offload: a fetched value has no memory');
    return new Tensor(new BufferData(moved.storage.retain(), data.layout), shape, dtype);
  }

  drop(handle: OffloadHandle): void {
    const { moved, group, data } = handle;
    this.#stats.values--;
    if (!moved || !group) {
      this.#stats.stayed--;
      data.release();
      return;
    }
    this.#groups.remove(group, moved);
    moved.handles--;
    if (moved.handles > 0) return;
    if (this.#byOrigin.get(moved.origin) === moved) this.#byOrigin.delete(moved.origin);
    this.#transfer?.discard(moved.parcel);
    this.#storedBytes -= moved.parcel.bytes;
    moved.arriving = false;
    this.#release(moved);
    // The next value opens the place anew, should it have failed.
    if (this.#storedBytes === 0) this.#transfer = undefined;
  }

  held({ moved, data, shape, dtype, context }: OffloadHandle): HeldValue[] {
    const storage = moved ? moved.storage : data.storage;
    if (!storage) return [];
    const heldData = new BufferData(storage, data.layout);
    return [{ context, shape, dtype, heldData, heldByHooks: [] }];
  }

  /** Throws InternalError unless nothing is in the store, as after a backward that keeps no graph (O2). */
  assertEmpty(): void {
    const { values, residentBytes, storedBytes } = this.stats;
    invariant(
      values === 0 && residentBytes === 0 && storedBytes === 0 && this.#groups.last === undefined,
      () =>
        `offload: ${values} values are left after backward (${residentBytes} bytes in memory, ${storedBytes} moved)`,
    );
  }

  /** The entry of a storage as it is now; starts moving one that is not in the store. */
  #moved(origin: Storage): Moved {
    const known = this.#byOrigin.get(origin);
    if (known?.version === origin.version) return known;
    this.#transfer ??= this.#backend.openTransfer(this.#settings.place);
    const bytes = origin.bytes;
    const parcel = this.#transfer.store({ block: origin.block, byteOffset: 0 }, bytes);
    const { category } = origin.block;
    const { version } = origin;
    const moved: Moved = {
      origin,
      version,
      category,
      parcel,
      storage: undefined,
      arriving: false,
      handles: 0,
    };
    this.#hold(moved, origin.retain());
    this.#byOrigin.set(origin, moved);
    this.#stats.bytesOut += bytes;
    this.#storedBytes += bytes;
    this.#stats.peakStoredBytes = Math.max(this.#stats.peakStoredBytes, this.#storedBytes);
    return moved;
  }

  /** Gives back the memory of what is not in `group` or the `depth` groups before it. */
  #keepOnly(group: SaveGroup<Moved> | undefined, depth: number): void {
    const kept = new Set<Moved>();
    let at = group;
    for (let i = 0; at && i <= depth; i++, at = at.previous) {
      for (const moved of at.values.keys()) kept.add(moved);
    }
    for (const moved of [...this.#inMemory]) {
      if (kept.has(moved)) continue;
      if (this.#transfer?.canWait === false && !this.#transfer.isDone(moved.parcel)) continue;
      this.#wait(moved.parcel);
      moved.arriving = false;
      this.#release(moved);
    }
  }

  #prefetch(group: SaveGroup<Moved>, depth: number): void {
    let at: SaveGroup<Moved> | undefined = group;
    try {
      for (let i = 0; at && i <= depth; i++, at = at.previous) {
        for (const moved of at.values.keys()) this.#fetch(moved);
      }
    } catch (error) {
      // No memory for what is not needed yet is no reason to fail: it is fetched when it is.
      if (!(error instanceof RetuneError && error.code === 'out-of-memory')) throw error;
    }
  }

  /** Starts bringing a value back unless it is in memory. */
  #fetch(moved: Moved): void {
    if (moved.storage) return;
    if (moved.origin.owners > 0) {
      this.#hold(moved, moved.origin.retain());
      return;
    }
    invariant(this.#transfer, () => 'offload: a value was moved without a transfer');
    const storage = Storage.allocate(this.#backend, moved.parcel.bytes, moved.category);
    this.#hold(moved, storage);
    this.#transfer.load(moved.parcel, { block: storage.block, byteOffset: 0 });
    moved.arriving = true;
    this.#stats.bytesIn += moved.parcel.bytes;
  }

  #hold(moved: Moved, storage: Storage): void {
    moved.storage = storage;
    this.#inMemory.add(moved);
    this.#residentBytes += storage.bytes;
  }

  #release(moved: Moved): void {
    const { storage } = moved;
    if (!storage) return;
    moved.storage = undefined;
    this.#inMemory.delete(moved);
    this.#residentBytes -= storage.bytes;
    storage.release();
  }

  #wait(parcel: Parcel): void {
    const transfer = this.#transfer;
    if (!transfer) return;
    if (transfer.isDone(parcel)) {
      transfer.wait(parcel);
      return;
    }
    const start = performance.now();
    try {
      transfer.wait(parcel);
    } finally {
      this.#stats.waitMs += performance.now() - start;
    }
  }
}

/** The error for a compiled step. */
export function refuseTrace(): CompileError {
  return new CompileError(
    'offloadActivations: in a compiled step the plan says what is moved (got a step that is being traced). ' +
      'Give compile a budget with actions: { offload: true }, use a region policy that offloads, or compressActivations; or run the step without compile.',
  );
}

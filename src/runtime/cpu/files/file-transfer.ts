/**
 * Blocks of the shared memory in a file. One thread per backend does the reading and writing, for all
 * of its folders; a heap divides each file, so that freed stretches are used again, and an empty file
 * is cut to nothing.
 */

import { InternalError, invariant } from '../../../core/errors.ts';
import { alignBytes, alignment } from '../../allocator.ts';
import type { BlockRef } from '../../backend.ts';
import { type Chunk, Heap } from '../../heap.ts';
import type { BlockTransfer, Parcel } from '../../transfer.ts';
import type { SharedMemory } from '../memory.ts';
import { startFileThread } from '../platform.ts';
import { type FileThreadStart, JobQueue, queueWord, queueWords } from './job-queue.ts';
import { type OffloadFolder, offloadError, openOffloadFolder } from './offload-folder.ts';

/** The file transfers of one backend: one for each folder. */
export class FileTransfers {
  readonly #memory: SharedMemory;
  readonly #fault: FileThreadStart['fault'];
  /** The one in use for each folder. */
  readonly #open = new Map<string, FileTransfer>();
  readonly #all = new Set<FileTransfer>();
  #queue: JobQueue | undefined;

  /** `fault`: a job that fails, for tests. */
  constructor(memory: SharedMemory, fault?: FileThreadStart['fault']) {
    this.#memory = memory;
    this.#fault = fault;
  }

  /** The transfer into a folder below `dir`; another one once it has failed. Throws FileError. */
  open(dir: string | undefined): FileTransfer {
    const key = dir ?? '';
    const known = this.#open.get(key);
    if (known && !known.broken) return known;
    const made = new FileTransfer(this.#jobs(), openOffloadFolder(dir));
    known?.closeWhenEmpty();
    this.#open.set(key, made);
    this.#all.add(made);
    return made;
  }

  /** Removes the folders, whatever is in them, and ends the thread. */
  close(): void {
    for (const transfer of this.#all) transfer.close();
    this.#queue?.submit({ kind: 'stop', file: -1, address: 0, bytes: 0, position: 0 });
    this.#queue = undefined;
    this.#open.clear();
    this.#all.clear();
  }

  /** Starts the thread when it is first needed. */
  #jobs(): JobQueue {
    if (this.#queue) return this.#queue;
    const words = queueWords();
    const { memory, memory64 } = this.#memory;
    let loss: unknown;
    startFileThread(
      { memory, memory64, words, ...(this.#fault && { fault: this.#fault }) },
      (error) => {
        loss = error;
      },
    );
    this.#queue = new JobQueue(words, () => {
      if (Atomics.load(words, queueWord.exited) === 0) return;
      throw new InternalError(`file transfer: its thread ended (${loss ?? 'it exited'})`);
    });
    return this.#queue;
  }
}

class FileParcel implements Parcel {
  readonly bytes: number;
  readonly chunk: Chunk;
  readonly written: number;
  /** Job of the latest copy back. */
  read: number | undefined;

  constructor(bytes: number, chunk: Chunk, written: number) {
    this.bytes = bytes;
    this.chunk = chunk;
    this.written = written;
  }
}

export class FileTransfer implements BlockTransfer {
  readonly canWait = true;
  readonly #queue: JobQueue;
  readonly #folder: OffloadFolder;
  readonly #heap = new Heap({
    start: 0,
    limit: Number.MAX_SAFE_INTEGER - (Number.MAX_SAFE_INTEGER % alignment),
    grow: (end) => end,
  });
  #held = 0;
  #broken = false;
  #closing = false;
  #closed = false;

  constructor(queue: JobQueue, folder: OffloadFolder) {
    this.#queue = queue;
    this.#folder = folder;
  }

  get place(): string {
    return this.#folder.path;
  }

  get held(): number {
    return this.#held;
  }

  /** Whether a copy has failed: what is there may be read, but nothing more should go there. */
  get broken(): boolean {
    return this.#broken;
  }

  store(source: BlockRef, bytes: number): Parcel {
    const chunk = this.#heap.alloc(alignBytes(bytes));
    invariant(chunk, () => `file transfer: no place for ${bytes} bytes`);
    this.#held += bytes;
    return new FileParcel(bytes, chunk, this.#submit('write', source, bytes, chunk.address));
  }

  load(parcel: Parcel, target: BlockRef): void {
    const own = parcel as FileParcel;
    if (own.read !== undefined) this.#queue.forget(own.read);
    own.read = this.#submit('read', target, own.bytes, own.chunk.address);
  }

  isDone(parcel: Parcel): boolean {
    const { read, written } = parcel as FileParcel;
    return this.#queue.isDone(read ?? written);
  }

  wait(parcel: Parcel): void {
    const { read, written } = parcel as FileParcel;
    this.#queue.wait(read ?? written);
    const failure =
      this.#queue.failureOf(written) ??
      (read === undefined ? undefined : this.#queue.failureOf(read));
    if (failure === undefined) return;
    this.#broken = true;
    if (/^E[A-Z0-9]+$/.test(failure)) throw offloadError(this.place, failure);
    throw new InternalError(`file transfer: ${failure}`);
  }

  discard(parcel: Parcel): void {
    const { read, written, chunk, bytes } = parcel as FileParcel;
    this.#queue.cancel(written);
    if (read !== undefined) {
      this.#queue.cancel(read);
      // Until it is over the thread may still write into the target.
      this.#queue.wait(read);
      this.#queue.forget(read);
    }
    this.#queue.forget(written);
    this.#heap.free(chunk);
    this.#held -= bytes;
    if (this.#held > 0 || this.#closed) return;
    if (this.#closing) this.close();
    else this.#submit('truncate', undefined, 0, 0);
  }

  /** For a transfer that others have replaced. */
  closeWhenEmpty(): void {
    if (this.#held === 0) this.close();
    else this.#closing = true;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // Jobs under way must not meet a descriptor that means another file by then.
    this.#queue.wait(this.#submit('truncate', undefined, 0, 0));
    this.#folder.close();
  }

  #submit(
    kind: 'write' | 'read' | 'truncate',
    ref: BlockRef | undefined,
    bytes: number,
    position: number,
  ): number {
    const address = ref ? ref.block.address + ref.byteOffset : 0;
    return this.#queue.submit({ kind, file: this.#folder.file, address, bytes, position });
  }
}

/**
 * What a tensor handle points at: memory of a backend, or a value of the graph being traced. Both are
 * counted references to something shared, with a version that in-place changes advance.
 */

import type { Layout } from '../core/shape.ts';
import type { MemoryCategory } from '../runtime/allocator.ts';
import type { Storage } from './storage.ts';

export interface TensorData {
  readonly kind: 'buffer' | 'traced' | 'phantom';
  /** In-place changes of the shared memory so far. */
  readonly version: number;
  bumpVersion(): void;
  /** Another owner of the same data. */
  retain(): TensorData;
  release(): void;
  /** Other memory with the same contents, where that costs nothing: in a trace. Else undefined. */
  fork(): TensorData | undefined;
  /** Identity of the shared memory: equal for all views of one storage. */
  readonly root: object;
  /** Whether the memory is held beyond the step whatever becomes of this data: a parameter, optimizer state, an input, or a view of one. */
  readonly outlivesStep: boolean;
}

const lasting: ReadonlySet<MemoryCategory> = new Set([
  'parameter',
  'optimizer',
  'gradient',
  'input',
]);

export class BufferData implements TensorData {
  readonly kind = 'buffer';
  readonly storage: Storage;
  readonly layout: Layout;

  /** Takes over one owner of `storage`. */
  constructor(storage: Storage, layout: Layout) {
    this.storage = storage;
    this.layout = layout;
  }

  get version(): number {
    return this.storage.version;
  }

  bumpVersion(): void {
    this.storage.version++;
  }

  retain(): BufferData {
    return new BufferData(this.storage.retain(), this.layout);
  }

  release(): void {
    this.storage.release();
  }

  fork(): undefined {
    return undefined;
  }

  get root(): object {
    return this.storage;
  }

  get outlivesStep(): boolean {
    return lasting.has(this.storage.block.category);
  }
}

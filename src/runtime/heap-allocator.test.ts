import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { OutOfMemoryError } from '../core/errors.ts';
import {
  type Allocator,
  alignBytes,
  type Block,
  type MemoryCategory,
  type MemoryEvent,
  memoryCategories,
} from './allocator.ts';
import { Heap } from './heap.ts';
import { HeapAllocator } from './heap-allocator.ts';
import { ReferenceAllocator } from './reference/allocator.ts';

const mebibyte = 2 ** 20;

function heapAllocator(limit = 64 * mebibyte): Allocator {
  const heap = new Heap({ start: 64, limit: limit + 64, grow: (end) => end });
  return new HeapAllocator({ heap, limitName: 'the test memory' });
}

const allocators: Readonly<Record<string, () => Allocator>> = {
  HeapAllocator: () => heapAllocator(),
  ReferenceAllocator: () => new ReferenceAllocator(),
};

for (const [name, create] of Object.entries(allocators)) {
  describe(name, () => {
    it('has exact statistics after every call', () => {
      const action = fc.record({
        kind: fc.constantFrom('alloc', 'alloc', 'free', 'recategorize', 'reset'),
        bytes: fc.nat(5000),
        category: fc.constantFrom<MemoryCategory[]>(...memoryCategories),
        pick: fc.nat(1000),
      });
      fc.assert(
        fc.property(fc.array(action, { maxLength: 80 }), (actions) => {
          const allocator = create();
          const blocks: Block[] = [];
          let peak = 0;
          const live = (): number => blocks.reduce((sum, block) => sum + block.bytes, 0);
          for (const { kind, bytes, category, pick } of actions) {
            const at = blocks.length === 0 ? -1 : pick % blocks.length;
            if (kind === 'alloc') {
              const block = allocator.alloc(bytes, category);
              assert.equal(block.bytes, alignBytes(bytes));
              blocks.push(block);
              peak = Math.max(peak, live());
            } else if (kind === 'reset') {
              allocator.resetPeak();
              peak = live();
            } else if (at >= 0 && kind === 'free') {
              allocator.free(blocks.splice(at, 1)[0]!);
            } else if (at >= 0) {
              allocator.recategorize(blocks[at]!, category);
            }
            const stats = allocator.stats();
            assert.equal(stats.live, live());
            assert.equal(stats.peak, peak);
            assert.equal(stats.blocks, blocks.length);
            assert.ok(stats.reserved >= stats.live);
            for (const one of memoryCategories) {
              const own = blocks.filter((block) => block.category === one);
              assert.equal(
                stats.byCategory[one],
                own.reduce((sum, block) => sum + block.bytes, 0),
              );
            }
            const atPeak = Object.values(stats.peakByCategory).reduce((sum, n) => sum + n, 0);
            assert.equal(atPeak, peak);
          }
        }),
        { numRuns: 100 },
      );
    });

    it('tells listeners of every event until they leave', () => {
      const allocator = create();
      const events: MemoryEvent[] = [];
      const leave = allocator.observe((event) => events.push(event));
      const block = allocator.alloc(100, 'gradient');
      allocator.recategorize(block, 'parameter');
      allocator.free(block);
      leave();
      allocator.free(allocator.alloc(1, 'input'));
      assert.deepEqual(
        events.map(({ kind, category, bytes, live }) => [kind, category, bytes, live]),
        [
          ['alloc', 'gradient', 128, 128],
          ['recategorize', 'parameter', 128, 128],
          ['free', 'parameter', 128, 0],
        ],
      );
    });

    it('keeps to a limit that is set and says what is live', () => {
      const allocator = create();
      allocator.setLimit(3 * mebibyte);
      allocator.alloc(2 * mebibyte, 'parameter');
      assert.throws(
        () => allocator.alloc(mebibyte + 1, 'activation'),
        (error) => {
          assert.ok(error instanceof OutOfMemoryError);
          assert.match(error.message, /category activation/);
          assert.match(error.message, /1\.00 MiB asked, 2\.00 MiB live: parameter 2\.00 MiB/);
          assert.match(error.message, /the limit that was set 3\.00 MiB/);
          assert.match(error.message, /activation checkpointing/);
          assert.equal(error.details.requested, mebibyte + 64);
          return true;
        },
      );
      assert.equal(allocator.stats().live, 2 * mebibyte);
      allocator.setLimit(undefined);
      allocator.alloc(2 * mebibyte, 'activation');
    });

    it('refuses sizes that are none, and to free twice', () => {
      const allocator = create();
      for (const bytes of [-1, Number.NaN, 1.5]) {
        assert.throws(() => allocator.alloc(bytes, 'input'), /not a byte count/);
      }
      const block = allocator.alloc(1, 'input');
      allocator.free(block);
      assert.throws(() => allocator.free(block), /freed already/);
      assert.equal(allocator.stats().live, 0);
    });
  });
}

describe('HeapAllocator', () => {
  it('gives empty blocks no memory', () => {
    const allocator = heapAllocator();
    const block = allocator.alloc(0, 'input');
    assert.equal(block.bytes, 0);
    assert.equal(allocator.stats().reserved, 0);
    assert.equal(allocator.stats().blocks, 1);
    allocator.free(block);
    assert.equal(allocator.stats().blocks, 0);
  });

  it('reports the end of the memory as OutOfMemoryError and recovers', () => {
    const allocator = heapAllocator(mebibyte);
    const half = allocator.alloc(mebibyte / 2, 'optimizer');
    assert.throws(() => allocator.alloc(mebibyte, 'gradient'), {
      name: 'OutOfMemoryError',
      message: /the test memory 1\.00 MiB/,
    });
    allocator.free(half);
    assert.equal(allocator.alloc(mebibyte, 'gradient').bytes, mebibyte);
  });

  it('keeps freed memory reserved and reuses it', () => {
    const allocator = heapAllocator();
    const block = allocator.alloc(1000, 'activation');
    const { reserved } = allocator.stats();
    const { address } = block;
    allocator.free(block);
    assert.equal(allocator.stats().reserved, reserved);
    assert.equal(allocator.alloc(1000, 'activation').address, address);
  });
});

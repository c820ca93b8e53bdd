import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { alignment } from './allocator.ts';
import { type Chunk, Heap } from './heap.ts';

const kibibyte = 1024;

function createHeap(limit = 1024 * kibibyte, step = 16 * kibibyte): Heap {
  return new Heap({
    start: 4096,
    limit,
    grow: (end) => (end > limit ? undefined : Math.min(limit, Math.ceil(end / step) * step)),
  });
}

function take(heap: Heap, bytes: number): Chunk {
  const chunk = heap.alloc(bytes);
  assert.ok(chunk, `no chunk of ${bytes} bytes`);
  return chunk;
}

/** Every byte from the start to the end reached belongs to exactly one chunk. */
function checkTiling(heap: Heap): void {
  let at = heap.start;
  let wasFree = false;
  for (const chunk of heap.chunks()) {
    assert.equal(chunk.address, at);
    assert.ok(chunk.bytes > 0 && chunk.bytes % alignment === 0);
    assert.ok(!(wasFree && chunk.free), `two free chunks touch at ${at}`);
    wasFree = chunk.free;
    at += chunk.bytes;
  }
  assert.equal(at, heap.start + heap.reserved);
}

describe('Heap', () => {
  it('keeps chunks apart and joins free neighbours under any sequence of calls', () => {
    const action = fc.record({
      free: fc.boolean(),
      pick: fc.nat(1000),
      units: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 400 })),
    });
    fc.assert(
      fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
        const heap = createHeap();
        const used: Chunk[] = [];
        const owners = new Map<Chunk, number>();
        for (const { free, pick, units } of actions) {
          if (free && used.length > 0) {
            const [chunk] = used.splice(pick % used.length, 1);
            heap.free(chunk!);
          } else {
            const chunk = heap.alloc(units * alignment);
            if (chunk === undefined) continue;
            assert.equal(chunk.bytes, units * alignment);
            used.push(chunk);
            owners.set(chunk, chunk.address);
          }
          checkTiling(heap);
        }
        for (const chunk of used) {
          assert.equal(chunk.address, owners.get(chunk), 'a chunk in use moved');
          assert.equal(chunk.free, false);
        }
        for (const chunk of used) heap.free(chunk);
        const left = [...heap.chunks()];
        assert.ok(left.length <= 1, 'free space is in more than one piece');
      }),
      { numRuns: 200 },
    );
  });

  it('reuses a freed chunk of the same size before it grows', () => {
    const heap = createHeap();
    const first = take(heap, 4096);
    take(heap, alignment);
    const { address } = first;
    const reserved = heap.reserved;
    heap.free(first);
    assert.equal(take(heap, 4096).address, address);
    assert.equal(heap.reserved, reserved);
  });

  it('prefers the smallest free chunk that fits', () => {
    const heap = createHeap();
    const large = take(heap, 8192);
    take(heap, alignment);
    const small = take(heap, 2048);
    take(heap, alignment);
    const wanted = small.address;
    heap.free(large);
    heap.free(small);
    assert.equal(take(heap, 2048 - alignment).address, wanted);
  });

  it('makes a free chunk at the end longer instead of leaving it behind', () => {
    const heap = createHeap(1024 * kibibyte, 64);
    take(heap, 1024);
    const last = take(heap, 1024);
    const { address } = last;
    heap.free(last);
    assert.equal(take(heap, 4096).address, address);
    assert.equal(heap.reserved, 1024 + 4096);
  });

  it('says no at the limit and goes on working', () => {
    const heap = createHeap(64 * kibibyte);
    const most = 64 * kibibyte - heap.start;
    assert.equal(heap.alloc(most + alignment), undefined);
    const all = take(heap, most);
    assert.equal(heap.alloc(alignment), undefined);
    heap.free(all);
    assert.equal(take(heap, alignment).address, heap.start);
  });

  it('refuses to free a chunk twice', () => {
    const heap = createHeap();
    const chunk = take(heap, 64);
    heap.free(chunk);
    assert.throws(() => heap.free(chunk), /free already/);
  });
});

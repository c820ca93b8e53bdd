/** Device memory to host memory, on doubles of devices: one that can be waited for and one that cannot. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InternalError } from '../core/errors.ts';
import type { Block } from './allocator.ts';
import type { BlockRef } from './backend.ts';
import { HostTransfer } from './host-transfer.ts';

/** A device of 4 KiB whose reads arrive when `arrive` is called. */
class Device {
  readonly synchronous: boolean;
  readonly memory: Uint8Array = Uint8Array.from({ length: 4096 }, (_, i) => i & 255);
  readonly #pending: (() => void)[] = [];

  constructor(synchronous: boolean) {
    this.synchronous = synchronous;
  }

  read({ block, byteOffset }: BlockRef, bytes: number): Uint8Array {
    assert.ok(this.synchronous, 'this device cannot be read at once');
    const start = block.address + byteOffset;
    return this.memory.slice(start, start + bytes);
  }

  readAsync({ block, byteOffset }: BlockRef, bytes: number): Promise<Uint8Array> {
    const start = block.address + byteOffset;
    // The copy is queued behind the work so far: later writes do not change it.
    const data = this.memory.slice(start, start + bytes);
    return new Promise((resolve) => this.#pending.push(() => resolve(data)));
  }

  write({ block, byteOffset }: BlockRef, data: Uint8Array): void {
    this.memory.set(data, block.address + byteOffset);
  }

  async arrive(): Promise<void> {
    for (const resolve of this.#pending.splice(0)) resolve();
    await Promise.resolve();
  }
}

const block: Block = { id: 1, address: 64, bytes: 256, category: 'activation' };
const source = { block, byteOffset: 0 };

test('a device that can be waited for: the bytes of the moment of the store', () => {
  const device = new Device(true);
  const transfer = new HostTransfer(device);
  const want = device.memory.slice(64, 320);
  const parcel = transfer.store(source, 256);
  device.memory.fill(0);
  assert.ok(transfer.isDone(parcel));
  assert.equal(transfer.held, 256);
  transfer.load(parcel, { block: { ...block, address: 1024 }, byteOffset: 0 });
  transfer.wait(parcel);
  assert.deepEqual(device.memory.slice(1024, 1280), want);
  transfer.discard(parcel);
  assert.equal(transfer.held, 0);
});

test('a device that cannot be waited for is asked until it is done', async () => {
  const device = new Device(false);
  const transfer = new HostTransfer(device);
  const want = device.memory.slice(64, 320);
  const parcel = transfer.store(source, 256);
  assert.equal(transfer.canWait, false);
  assert.equal(transfer.isDone(parcel), false);
  assert.throws(() => transfer.wait(parcel), InternalError);
  await device.arrive();
  assert.ok(transfer.isDone(parcel));
  device.memory.fill(0);
  transfer.load(parcel, source);
  assert.deepEqual(device.memory.slice(64, 320), want);
  transfer.discard(parcel);
});

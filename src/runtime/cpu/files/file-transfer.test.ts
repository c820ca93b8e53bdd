/** Blocks in files: contents, reuse of space, order, failures, and what dead processes leave behind. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, test } from 'node:test';
import { FileError, InternalError } from '../../../core/errors.ts';
import { createCpuBackend } from '../../registry.ts';
import type { BlockTransfer } from '../../transfer.ts';
import type { CpuBackend, CpuBackendOptions } from '../backend.ts';

const root = mkdtempSync(join(tmpdir(), 'retune-files-test-'));
after(() => rmSync(root, { recursive: true, force: true }));

function withBackend(
  body: (backend: CpuBackend, dir: string) => void,
  options: CpuBackendOptions = {},
): void {
  const dir = mkdtempSync(join(root, 'x-'));
  const backend = createCpuBackend({ threads: 1, ...options });
  try {
    body(backend, dir);
  } finally {
    backend.dispose();
  }
  assert.deepEqual(readdirSync(dir), [], 'the folder is gone with its backend');
}

function pattern(bytes: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => (i * 31 + seed * 7) & 255);
}

function fileBytes(transfer: BlockTransfer): number {
  return statSync(join(transfer.place, 'values')).size;
}

test('what is stored comes back, in any order, beside further stores', () => {
  withBackend((backend, dir) => {
    const { allocator } = backend;
    const transfer = backend.openTransfer({ to: 'file', dir });
    const sizes = Array.from({ length: 300 }, (_, i) => 64 + ((i * 997) % 5000));
    const parcels = sizes.map((bytes, i) => {
      const block = allocator.alloc(bytes, 'activation');
      backend.write({ block, byteOffset: 0 }, pattern(bytes, i));
      const parcel = transfer.store({ block, byteOffset: 0 }, bytes);
      transfer.wait(parcel);
      assert.ok(transfer.isDone(parcel));
      allocator.free(block);
      return parcel;
    });
    assert.equal(
      transfer.held,
      sizes.reduce((a, b) => a + b),
    );
    for (const i of [299, 0, 150, 7, 150]) {
      const parcel = parcels[i];
      const bytes = sizes[i] ?? 0;
      assert.ok(parcel);
      const block = allocator.alloc(bytes + 64, 'activation');
      transfer.load(parcel, { block, byteOffset: 64 });
      transfer.wait(parcel);
      assert.deepEqual(backend.read({ block, byteOffset: 64 }, bytes), pattern(bytes, i));
      allocator.free(block);
    }
    for (const parcel of parcels) transfer.discard(parcel);
    assert.equal(transfer.held, 0);
  });
});

test('space in the file is used again, and an empty file has no bytes', () => {
  withBackend((backend, dir) => {
    const transfer = backend.openTransfer({ to: 'file', dir });
    const block = backend.allocator.alloc(4096, 'activation');
    const store = () => transfer.store({ block, byteOffset: 0 }, 4096);
    let kept = store();
    for (let i = 0; i < 200; i++) {
      const next = store();
      transfer.wait(next);
      transfer.discard(kept);
      kept = next;
    }
    assert.ok(fileBytes(transfer) <= 3 * 4096);
    transfer.discard(kept);
    // The next job is done after the cut that the last discard asked for.
    const last = store();
    transfer.wait(last);
    assert.equal(fileBytes(transfer), 4096);
    transfer.discard(last);
    backend.allocator.free(block);
  });
});

test('a store that is discarded at once does not disturb others', () => {
  withBackend((backend, dir) => {
    const transfer = backend.openTransfer({ to: 'file', dir });
    const block = backend.allocator.alloc(2 ** 20, 'activation');
    for (let i = 0; i < 50; i++) {
      backend.write({ block, byteOffset: 0 }, pattern(2 ** 10, i));
      const abandoned = transfer.store({ block, byteOffset: 0 }, 2 ** 20);
      const wanted = transfer.store({ block, byteOffset: 0 }, 2 ** 10);
      transfer.discard(abandoned);
      transfer.wait(wanted);
      transfer.load(wanted, { block, byteOffset: 2 ** 12 });
      transfer.wait(wanted);
      assert.deepEqual(backend.read({ block, byteOffset: 2 ** 12 }, 2 ** 10), pattern(2 ** 10, i));
      transfer.discard(wanted);
    }
    backend.allocator.free(block);
  });
});

test('two folders of one backend, and equal places share one', () => {
  withBackend((backend, dir) => {
    const [a, b] = ['a', 'b'].map((name) =>
      backend.openTransfer({ to: 'file', dir: join(dir, name) }),
    );
    assert.ok(a && b && a.place !== b.place);
    assert.equal(backend.openTransfer({ to: 'file', dir: join(dir, 'a') }), a);
    backend.dispose();
    rmSync(join(dir, 'a'), { recursive: true });
    rmSync(join(dir, 'b'), { recursive: true });
  });
});

test('a failed job is the error of its own parcel, once it is waited for', () => {
  withBackend(
    (backend, dir) => {
      const transfer = backend.openTransfer({ to: 'file', dir });
      const block = backend.allocator.alloc(4096, 'activation');
      const parcels = [0, 1, 2].map(() => transfer.store({ block, byteOffset: 0 }, 4096));
      const [first, second, third] = parcels;
      assert.ok(first && second && third);
      transfer.wait(first);
      assert.throws(
        () => transfer.wait(second),
        (error) => {
          assert.ok(error instanceof FileError);
          assert.equal(error.details.reason, 'disk-full');
          assert.equal(error.details.path, transfer.place);
          return true;
        },
      );
      transfer.wait(third);
      for (const parcel of parcels) transfer.discard(parcel);
      assert.notEqual(backend.openTransfer({ to: 'file', dir }), transfer);
      assert.ok(!existsSync(transfer.place), 'the failed folder goes with its last parcel');
      backend.allocator.free(block);
    },
    { fileFault: { kind: 'write', at: 1, code: 'ENOSPC' } },
  );
});

test('failures without a system code are reported as bugs', () => {
  withBackend(
    (backend, dir) => {
      const transfer = backend.openTransfer({ to: 'file', dir });
      const block = backend.allocator.alloc(64, 'activation');
      const parcel = transfer.store({ block, byteOffset: 0 }, 64);
      assert.throws(() => transfer.wait(parcel), InternalError);
      transfer.discard(parcel);
      backend.allocator.free(block);
    },
    { fileFault: { kind: 'write', at: 0, code: 'Error: strange' } },
  );
});

/** A process that stores a block and then does `last`. */
function child(dir: string, last: string): ReturnType<typeof spawn> {
  const script = `
    import { createCpuBackend } from ${JSON.stringify(import.meta.resolve('../../registry.ts'))};
    const backend = createCpuBackend({ threads: 1 });
    const transfer = backend.openTransfer({ to: 'file', dir: ${JSON.stringify(dir)} });
    const block = backend.allocator.alloc(1 << 20, 'activation');
    const parcel = transfer.store({ block, byteOffset: 0 }, 1 << 20);
    transfer.wait(parcel);
    process.stdout.write(transfer.place + '\\n');
    ${last}`;
  return spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}

async function firstLine(process: ReturnType<typeof spawn>): Promise<string> {
  assert.ok(process.stdout);
  const [chunk] = await once(process.stdout, 'data');
  return String(chunk).trim();
}

test('the folder goes when the process exits, by an uncaught error too', async () => {
  for (const last of ['process.exit(0)', "throw new Error('bug')", '']) {
    const dir = mkdtempSync(join(root, 'exit-'));
    const process_ = child(dir, last);
    const place = await firstLine(process_);
    assert.equal(basename(join(place, '..')), basename(dir));
    await once(process_, 'exit');
    assert.deepEqual(readdirSync(dir), [], last);
  }
});

test('what a killed process left is removed by the next that opens a folder there, and only that', async () => {
  const dir = mkdtempSync(join(root, 'killed-'));
  const process_ = child(dir, 'setInterval(() => {}, 1000)');
  const place = await firstLine(process_);
  const living = basename(place).replace(/-\d+-[^-]*$/, `-${process.pid}-other`);
  mkdirSync(join(dir, living));
  writeFileSync(join(dir, 'notes'), 'mine');
  const backend = createCpuBackend({ threads: 1 });
  backend.openTransfer({ to: 'file', dir });
  assert.ok(existsSync(place), 'the folder of a living process stays');
  backend.dispose();
  process_.kill('SIGKILL');
  await once(process_, 'exit');
  assert.ok(existsSync(place), 'a killed process cannot clear up');
  const next = createCpuBackend({ threads: 1 });
  next.openTransfer({ to: 'file', dir });
  assert.ok(!existsSync(place));
  next.dispose();
  assert.deepEqual(readdirSync(dir).sort(), ['notes', living].sort());
});

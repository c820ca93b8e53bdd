import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, describe, it } from 'node:test';
import type { FunctionBuilder } from '../../codegen/wasm/function.ts';
import { type KernelArguments, kernelFunction } from '../../codegen/wasm/kernel-function.ts';
import { ModuleBuilder } from '../../codegen/wasm/module.ts';
import type { WasmRoutine } from '../../ir/op.ts';
import type { Block } from '../allocator.ts';
import type { BlockRef, Lowered } from '../backend.ts';
import { CpuBackend, type CpuBackendOptions } from './backend.ts';

type Body = (f: FunctionBuilder, k: KernelArguments) => void;

function routine(
  key: string,
  operands: number,
  body: Body,
  more: Partial<WasmRoutine> = {},
  memory64 = false,
): Lowered {
  const build = (): Uint8Array => {
    const module = new ModuleBuilder({ address: memory64 ? 'i64' : 'i32' });
    kernelFunction(module, 'main', body);
    return module.bytes();
  };
  const operand = { aval: { shape: [1], dtype: 'float32' }, layout: { offset: 0, strides: [1] } };
  return {
    kind: 'routine',
    name: key,
    routine: {
      wasm: () => ({ key, build, ...more }),
      wgsl: { none: 'a test' },
      reference: () => {},
    },
    inputs: Array.from({ length: operands }, () => operand) as never,
    outputs: [],
    params: {},
  };
}

/** out[i] = in[i] * factor + addend for n elements; slots: in, out, n, factor, addend. */
function scaleAdd(
  n: number,
  factor: number,
  addend = 0,
  units?: number,
  memory64 = false,
): Lowered {
  return routine(
    'scaleAdd',
    2,
    (f, k) => {
      const [from, to, scale, plus] = [k.ptr(0), k.ptr(1), k.f32(3), k.f32(4)];
      const [begin, end] = k.share(k.i32(2));
      const i = f.local('i32');
      f.forRange(i, begin, end, 1, () => {
        f.store(to.at(i, 4), from.at(i, 4).f32().mul(scale).add(plus));
      });
    },
    {
      values: [
        { type: 'i32', value: n },
        { type: 'f32', value: factor },
        { type: 'f32', value: addend },
      ],
      ...(units === undefined ? {} : { parallelUnits: units }),
    },
    memory64,
  );
}

/** Traps on the given thread, and does nothing on the others. */
function trapOn(thread: number): Lowered {
  return routine(`trapOn${thread}`, 0, (f, k) => {
    f.if(k.thread.eq(thread), () => f.unreachable());
  });
}

function at(block: Block, byteOffset = 0): BlockRef {
  return { block, byteOffset };
}

function floats(backend: CpuBackend, values: readonly number[]): Block {
  const block = backend.allocator.alloc(values.length * 4, 'temporary');
  backend.write(at(block), new Uint8Array(Float32Array.from(values).buffer));
  return block;
}

function read(backend: CpuBackend, block: Block, count: number): number[] {
  return [...new Float32Array(backend.read(at(block), count * 4).buffer)];
}

/** A backend whose workers have started. */
async function started(options: CpuBackendOptions): Promise<CpuBackend> {
  const backend = new CpuBackend(options);
  const give = performance.now() + 10_000;
  while (backend.readyWorkers < (options.threads ?? 1) - 1) {
    assert.ok(performance.now() < give, 'the workers did not start');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return backend;
}

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

for (const threads of [1, 3]) {
  describe(`CPU backend with ${threads} threads`, () => {
    let backend: CpuBackend;
    before(async () => {
      backend = await started({ threads });
    });
    after(() => {
      assert.equal(backend.allocator.stats().live, 0);
      backend.dispose();
    });

    it('writes, reads and fills at byte offsets and rejects what lies outside', () => {
      const block = backend.allocator.alloc(100_000, 'temporary');
      backend.write(at(block, 5), Uint8Array.of(1, 2, 3));
      assert.deepEqual([...backend.read(at(block, 5), 3)], [1, 2, 3]);
      backend.write(at(block), new Uint8Array(block.bytes).fill(7));
      backend.fillZero(at(block, 3), 99_000);
      const bytes = backend.read(at(block), block.bytes);
      assert.ok(bytes.every((byte, i) => byte === (i >= 3 && i < 99_003 ? 0 : 7)));
      assert.throws(() => backend.read(at(block, block.bytes - 1), 2), /outside its block/);
      assert.throws(() => backend.write(at(block, -1), new Uint8Array(1)), /outside its block/);
      assert.throws(() => backend.fillZero(at(block), block.bytes + 1), /outside its block/);
      backend.allocator.free(block);
    });

    it('launches a kernel on every share of the work', () => {
      const n = 1003;
      const x = floats(backend, range(n));
      const y = floats(backend, new Array(n).fill(-1));
      backend.launch(backend.prepare(scaleAdd(n, 2, 1)), [], [at(x), at(y)]);
      assert.deepEqual(
        read(backend, y, n),
        range(n).map((i) => 2 * i + 1),
      );
      backend.launch(backend.prepare(scaleAdd(3, 1)), [], [at(x, 40), at(y, 8)]);
      assert.deepEqual(read(backend, y, 6), [1, 3, 10, 11, 12, 11]);
      for (const block of [x, y]) backend.allocator.free(block);
    });

    it('gives each thread its own scratch memory', () => {
      const scratchBytes = 4096;
      const lowered = routine(
        'scratch',
        1,
        (f, k) => {
          const [out, scratch] = [k.ptr(0), k.ptr(1)];
          const mine = f.let(scratch.add(k.thread.mul(scratchBytes)));
          const i = f.local('i32');
          f.forRange(i, 0, scratchBytes / 4, 1, () => f.store(mine.at(i, 4), k.thread));
          const sum = f.local('i32', 0);
          f.forRange(i, 0, scratchBytes / 4, 1, () => sum.set(sum.add(mine.at(i, 4).i32())));
          f.store(out.at(k.thread, 4), sum);
        },
        { scratchBytes },
      );
      const out = backend.allocator.alloc(64, 'temporary');
      for (let round = 0; round < 20; round++) {
        backend.launch(backend.prepare(lowered), [], [at(out)]);
        const sums = [...new Int32Array(backend.read(at(out), threads * 4).buffer)];
        assert.deepEqual(
          sums,
          range(threads).map((t) => t * 1024),
        );
      }
      backend.allocator.free(out);
    });

    it('runs a program of small, parallel and copy steps in order, again and again', () => {
      const n = 5000;
      const blocks = [1, 2, 3].map(() => floats(backend, range(n)));
      const step = (lowered: Lowered, from: number, to: number) => ({
        executable: backend.prepare(lowered),
        scalars: [],
        operands: [
          { slot: from, byteOffset: 0 },
          { slot: to, byteOffset: 0 },
        ],
        label: `step from ${from} to ${to}`,
      });
      const program = backend.createProgram([
        step(scaleAdd(n, 1, 1), 0, 1),
        step(scaleAdd(n, 1, 1, 1), 1, 2),
        step(scaleAdd(n, 1, 1, 1), 2, 1),
        { ...step(scaleAdd(1, 1), 1, 2), copyBytes: n * 4 },
        step(scaleAdd(n, 1, 1, 2), 2, 0),
      ]);
      for (let round = 1; round <= 200; round++) {
        program.run(blocks);
        if (round % 50 === 0) {
          const values = read(backend, blocks[0]!, n);
          assert.ok(values.every((value, i) => value === i + 4 * round));
        }
      }
      const others = [1, 2, 3].map(() => floats(backend, new Array(n).fill(1)));
      program.run(others);
      assert.ok(read(backend, others[0]!, n).every((value) => value === 5));
      const times = program.profile(others);
      assert.equal(times.length, 5);
      assert.ok(times.every((time) => time >= 0));
      assert.ok(read(backend, others[0]!, n).every((value) => value === 9));
      assert.throws(() => program.run(blocks.slice(0, 2)), /too few blocks/);
      program.dispose();
      assert.throws(() => program.run(blocks), /disposed/);
      for (const block of [...blocks, ...others]) backend.allocator.free(block);
    });

    it('copies large unaligned ranges', () => {
      const bytes = 3_000_001;
      const from = backend.allocator.alloc(bytes + 3, 'temporary');
      const to = backend.allocator.alloc(bytes + 7, 'temporary');
      const data = Uint8Array.from({ length: bytes + 3 }, (_, i) => (i * 31) >> 3);
      backend.write(at(from), data);
      backend.fillZero(at(to), bytes + 7);
      const program = backend.createProgram([
        {
          executable: backend.prepare(scaleAdd(1, 1)),
          scalars: [],
          operands: [
            { slot: 0, byteOffset: 3 },
            { slot: 1, byteOffset: 5 },
          ],
          copyBytes: bytes,
          label: 'copy',
        },
      ]);
      program.run([from, to]);
      program.dispose();
      assert.deepEqual(backend.read(at(to, 5), bytes), data.slice(3));
      assert.deepEqual([...backend.read(at(to), 5)], [0, 0, 0, 0, 0]);
      assert.deepEqual([...backend.read(at(to, bytes + 5), 2)], [0, 0]);
      backend.allocator.free(from);
      backend.allocator.free(to);
    });

    it('reports a kernel that traps on any thread, and works on', () => {
      const thread = threads - 1;
      const trap = backend.prepare(trapOn(thread));
      const expected = new RegExp(`trapOn${thread}.*unreachable.*on thread ${thread}`);
      for (let round = 0; round < 3; round++) {
        assert.throws(() => backend.launch(trap, [], []), expected);
      }
      const x = floats(backend, range(100));
      const good = backend.prepare(scaleAdd(100, 1, 1));
      const slots = [
        { slot: 0, byteOffset: 0 },
        { slot: 0, byteOffset: 0 },
      ];
      const program = backend.createProgram([
        { executable: good, scalars: [], operands: slots, label: 'good' },
        { executable: trap, scalars: [], operands: [], label: 'bad' },
        { executable: good, scalars: [], operands: slots, label: 'good' },
      ]);
      for (let round = 0; round < 3; round++) {
        assert.throws(() => program.run([x]), /step 1 \(bad\) failed: .*unreachable/);
      }
      program.dispose();
      backend.write(at(x), new Uint8Array(400));
      backend.launch(good, [], [at(x), at(x)]);
      assert.ok(read(backend, x, 100).every((value) => value === 1));
      backend.allocator.free(x);
    });

    it('loses no launch, whether its threads are awake, asleep or just falling asleep', async () => {
      const count = routine('count', 1, (f, k) => {
        const own = f.let(k.ptr(0).at(k.thread, 4));
        f.store(own, own.i32().add(1));
      });
      const counts = backend.allocator.alloc(64, 'temporary');
      backend.fillZero(at(counts), 64);
      const kernel = backend.prepare(count);
      const slots = [{ slot: 0, byteOffset: 0 }];
      const step = { executable: kernel, scalars: [], operands: slots, label: 'count' };
      const program = backend.createProgram(new Array(7).fill(step));
      let launches = 0;
      for (let round = 0; round < 600; round++) {
        // Around the time that a thread looks before it sleeps (80 us).
        const until = performance.now() + (round % 12) * 0.015;
        while (performance.now() < until);
        if (round % 100 === 99) await new Promise((resolve) => setTimeout(resolve, 2));
        if (round % 3 === 0) {
          program.run([counts]);
          launches += 7;
        } else {
          backend.launch(kernel, [], [at(counts)]);
          launches++;
        }
      }
      program.dispose();
      const seen = [...new Int32Array(backend.read(at(counts), threads * 4).buffer)];
      assert.deepEqual(seen, new Array(threads).fill(launches));
      backend.allocator.free(counts);
    });

    it('sees memory that was added after the threads began', () => {
      const before = backend.allocator.stats().reserved;
      const bytes = before + 2 ** 20;
      const n = bytes / 4;
      const block = backend.allocator.alloc(bytes, 'temporary');
      assert.ok(backend.allocator.stats().reserved > before);
      backend.fillZero(at(block), bytes);
      backend.launch(backend.prepare(scaleAdd(n, 1, 3)), [], [at(block), at(block)]);
      const end = new Float32Array(backend.read(at(block, bytes - 64), 64).buffer);
      assert.ok(end.every((value) => value === 3));
      backend.allocator.free(block);
    });

    it('reports kernels that are not there', () => {
      const lowered = {
        ...trapOn(0),
        routine: { wasm: { none: 'it is only a test' }, wgsl: { none: '' }, reference: () => {} },
      } as Lowered;
      assert.throws(() => backend.prepare(lowered), /does not run on the cpu.*only a test/);
    });

    it('rejects a wrong number of operands', () => {
      assert.throws(() => backend.launch(backend.prepare(scaleAdd(1, 1)), [], []), /got 0 for 2/);
    });
  });
}

describe('CPU backend', () => {
  it('works at once, while its workers start', () => {
    const backend = new CpuBackend({ threads: 3 });
    const x = floats(backend, range(10));
    backend.launch(backend.prepare(scaleAdd(10, 3)), [], [at(x), at(x)]);
    assert.deepEqual(
      read(backend, x, 10),
      range(10).map((i) => 3 * i),
    );
    backend.dispose();
    assert.throws(() => backend.launch(backend.prepare(scaleAdd(10, 3)), [], [at(x), at(x)]), {
      name: 'DisposedError',
    });
  });

  it('forgets kernels that were not used for long, and makes them again', async () => {
    const backend = await started({ threads: 2, cachedKernels: 8 });
    const x = floats(backend, [0]);
    const add = (value: number): Lowered =>
      routine(`add${value}`, 1, (f, k) => {
        const to = k.ptr(0);
        f.if(k.thread.eq(k.threads.sub(1)), () => f.store(to, to.f32().add(value)));
      });
    const first = backend.prepare(add(1));
    const pinned = backend.createProgram([
      {
        executable: backend.prepare(add(1000)),
        scalars: [],
        operands: [{ slot: 0, byteOffset: 0 }],
        label: 'pinned',
      },
    ]);
    let sum = 0;
    for (let round = 0; round < 3; round++) {
      for (let value = 1; value <= 30; value++) {
        backend.launch(backend.prepare(add(value)), [], [at(x)]);
        sum += value;
      }
      backend.launch(first, [], [at(x)]);
      pinned.run([x]);
      sum += 1001;
    }
    assert.deepEqual(read(backend, x, 1), [sum]);
    pinned.dispose();
    backend.dispose();
  });

  it('runs with 64-bit addresses', async () => {
    const backend = await started({ threads: 2, memory64: true, matmul: 'wasm' });
    const n = 1000;
    const x = floats(backend, range(n));
    const kernel = backend.prepare(scaleAdd(n, 2, 1, 2, true));
    backend.launch(kernel, [], [at(x), at(x)]);
    assert.deepEqual(
      read(backend, x, n),
      range(n).map((i) => 2 * i + 1),
    );
    const large = backend.allocator.alloc(2 ** 20, 'temporary');
    backend.fillZero(at(large), 2 ** 20);
    assert.ok(backend.read(at(large), 2 ** 20).every((byte) => byte === 0));
    backend.dispose();
  });

  it('reaches past 4 GiB when that is asked for', async () => {
    const backend = await started({ threads: 2, maximumBytes: 6 * 2 ** 30 });
    const n = 3000;
    const large = backend.allocator.alloc(5 * 2 ** 30, 'temporary');
    const x = floats(backend, range(n));
    assert.ok(x.address > 2 ** 32);
    backend.launch(backend.prepare(scaleAdd(n, 2, 1, 2, true)), [], [at(x), at(x)]);
    assert.deepEqual(
      read(backend, x, n),
      range(n).map((i) => 2 * i + 1),
    );
    const last = at(large, large.bytes - 8);
    backend.write(last, Uint8Array.of(1, 2, 3));
    assert.deepEqual([...backend.read(last, 4)], [1, 2, 3, 0]);
    backend.dispose();
  });

  it('gives free pages back when trimmed, where the system can', (t) => {
    const backend = new CpuBackend({ threads: 1 });
    if (process.platform !== 'linux' || !backend.info.matmul?.includes('lib')) {
      backend.dispose();
      return t.skip('koffi or madvise is not there');
    }
    const bytes = 2 ** 27;
    const kept = floats(backend, range(100_000));
    const block = backend.allocator.alloc(bytes, 'temporary');
    backend.write(at(block), new Uint8Array(bytes).fill(1));
    backend.allocator.free(block);
    const before = process.memoryUsage.rss();
    backend.allocator.trim();
    assert.ok(process.memoryUsage.rss() < before - bytes / 2, 'the pages are still there');
    assert.deepEqual(read(backend, kept, 100_000), range(100_000));
    const again = backend.allocator.alloc(bytes, 'temporary');
    backend.write(at(again, bytes - 4), Uint8Array.of(1, 2, 3, 4));
    assert.deepEqual([...backend.read(at(again, bytes - 4), 4)], [1, 2, 3, 4]);
    backend.dispose();
  });

  it('checks its options', () => {
    assert.throws(() => new CpuBackend({ threads: 0 }), /threads is out of range \(got 0\)/);
    assert.throws(() => new CpuBackend({ threads: 1.5 }), /got 1\.5/);
  });

  it('reports the end of its memory', () => {
    const backend = new CpuBackend({ threads: 1, maximumBytes: 2 ** 27 });
    backend.allocator.alloc(2 ** 26, 'parameter');
    assert.throws(() => backend.allocator.alloc(2 ** 26, 'activation'), {
      name: 'OutOfMemoryError',
      message:
        /64\.0 MiB asked, 64\.0 MiB live: parameter 64\.0 MiB, the 32-bit WebAssembly memory/,
    });
    backend.dispose();
  });

  it('does not keep an idle process alive', () => {
    const code = `
      import { CpuBackend } from ${JSON.stringify(new URL('./backend.ts', import.meta.url).href)};
      const backend = new CpuBackend({ threads: 3 });
      const wait = () => backend.readyWorkers === 2 ? console.log('ready') : setTimeout(wait, 5);
      wait();`;
    const child = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
      encoding: 'utf8',
      timeout: 20_000,
    });
    assert.equal(child.status, 0, child.stderr);
    assert.equal(child.stdout, 'ready\n');
  });
});

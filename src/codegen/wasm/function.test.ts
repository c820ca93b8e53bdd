import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { instantiate, sharedMemory } from '../../../test/support/wasm-module.ts';
import { hasMemory64, hasRelaxedSimd } from './features.ts';
import { kernelFunction } from './kernel-function.ts';
import { ModuleBuilder } from './module.ts';
import { I32, I64, select } from './scalars.ts';

test('structured control: loops, branches, early return, calls', () => {
  const module = new ModuleBuilder();
  const square = module.func('square', ['i32'], (_f, x) => x.mul(x), {
    result: 'i32',
    export: false,
  });
  module.func(
    'run',
    ['i32'],
    (f, n) => {
      const total = f.local('i32');
      const i = f.local('i32');
      f.forRange(i, 0, n, 1, () => total.set(total.add(f.call(square, [i]))));
      f.whileLoop(
        () => total.gtS(1000),
        () => total.set(total.sub(1000)),
      );
      f.block((end) => {
        f.loop((again) => {
          f.brIf(end, total.geS(100));
          f.brIf(end, n.eqz());
          total.set(total.add(7));
          f.br(again);
        });
      });
      f.if(
        total.and(1),
        () => total.set(total.neg()),
        (end) => {
          f.brIf(end, total.ltS(200));
          f.return(I32.of(-1));
        },
      );
      return select(total.eqz(), I32.of(42), total);
    },
    { result: 'i32' },
  );
  const { run } = instantiate(module);
  const oracle = (n: number): number => {
    let total = 0;
    for (let i = 0; i < n; i++) total += i * i;
    while (total > 1000) total -= 1000;
    while (!(total >= 100 || n === 0)) total += 7;
    if (total & 1) total = -total;
    else if (!(total < 200)) return -1;
    return total === 0 ? 42 : total;
  };
  for (let n = 0; n < 40; n++) assert.equal(run(n), oracle(n), `n = ${n}`);
});

test('bulk memory, atomics and pointer arithmetic work in both address widths', () => {
  for (const address of ['i32', 'i64'] as const) {
    if (address === 'i64' && !hasMemory64()) continue;
    const module = new ModuleBuilder({ address });
    module.func('run', ['ptr', 'i32'], (f, p, n) => {
      const cursor = f.local('ptr');
      f.fill(p, 7, n);
      f.copy(p.add(64), p, 8);
      f.forRange(cursor, p.add(128), p.at(n.add(120), 1), 4, () => f.store(cursor, cursor.toI32()));
      f.store(p.at(I32.of(-1), 12).add(256), I32.of(5));
      f.store(p, p.add(3).alignUp(16).sub(p).toI32(), 300);
      f.atomicStore(p, I32.of(10), 304);
      f.store(p, f.atomicRmw('add', p, I32.of(5), 304), 308);
      f.store(p, f.atomicCompareExchange(p, I32.of(15), I32.of(99), 304), 312);
      f.store(p, p.atomicI32(304), 316);
      f.store(p, f.atomicRmw('xchg', p, I64.of(-3), 320), 328);
      f.store(p, p.atomicI64(320), 336);
      f.store(p, f.atomicWait(p, 1, -1, 304), 344);
      f.store(p, f.atomicWait(p, 99, 1000, 304), 348);
      f.store(p, f.atomicNotify(p, 1, 304), 352);
      f.fence();
      f.store(p, p, 360);
      f.store(p, p.ptr(360).i32(304), 368);
    });
    const wide = address === 'i64';
    const memory = wide
      ? new WebAssembly.Memory({ initial: 2n, maximum: 65536n, shared: true, address })
      : sharedMemory();
    const { view, run } = instantiate(module, memory);
    run(wide ? 1024n : 1024, 16);
    const i32 = (offset: number): number => view.getInt32(1024 + offset, true);
    assert.equal(i32(0), 0x07070707);
    assert.equal(i32(16), 0);
    assert.equal(i32(68), 0x07070707);
    assert.equal(i32(72), 0);
    assert.deepEqual([i32(128), i32(132), i32(136)], [1152, 1156, 0]);
    assert.equal(i32(244), 5);
    assert.equal(i32(300), 16);
    assert.deepEqual([i32(304), i32(308), i32(312), i32(316)], [99, 10, 15, 99]);
    assert.equal(view.getBigInt64(1024 + 336, true), -3n);
    assert.deepEqual([i32(344), i32(348), i32(352)], [1, 2, 0]);
    assert.equal(i32(368), 99);
  }
});

test('the parts of a kernel cover the range once, on any number of threads', () => {
  const module = new ModuleBuilder({ relaxed: hasRelaxedSimd() });
  kernelFunction(module, 'run', (f, k) => {
    const y = k.ptr(0);
    const [begin, end] = k.share(k.i32(1), 4);
    const i = f.local('i32');
    f.forRange(i, begin, end, 1, () => {
      const at = f.let(y.at(i, 4));
      f.store(at, at.i32().add(k.thread.add(1)));
    });
  });
  const { view, run } = instantiate(module);
  for (const [n, threads] of [
    [0, 1],
    [1, 4],
    [17, 1],
    [17, 3],
    [64, 7],
    [1000, 16],
  ] as const) {
    new Uint8Array(view.buffer).fill(0);
    view.setInt32(0, 4096, true);
    view.setInt32(8, n, true);
    for (let t = 0; t < threads; t++) run(0, t, threads);
    const owners = Array.from({ length: n }, (_, i) => view.getInt32(4096 + 4 * i, true));
    assert.ok(owners.every((owner, i) => owner >= 1 && owner >= (owners[i - 1] ?? 1)));
    assert.ok(owners.every((owner, i) => i % 4 === 0 || owner === owners[i - 1]));
    assert.equal(view.getInt32(4096 + 4 * n, true), 0);
  }
});

test('the example of the README computes a * x + y on any number of threads', async () => {
  const readme = readFileSync(new URL('README.md', import.meta.url), 'utf8');
  const block = /```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? '';
  const absolute = block.replaceAll("from './", `from '${new URL('.', import.meta.url)}`);
  const source = encodeURIComponent(`${absolute}\nexport { module };`);
  const { module } = (await import(`data:text/javascript,${source}`)) as { module: ModuleBuilder };
  const { view, run } = instantiate(module, sharedMemory(), 'axpy');
  const [x, y, n] = [1024, 4096, 103];
  for (const threads of [1, 3]) {
    for (let i = 0; i < n + 4; i++) {
      view.setFloat32(x + 4 * i, i, true);
      view.setFloat32(y + 4 * i, 0.5, true);
    }
    view.setUint32(0, x, true);
    view.setUint32(8, y, true);
    view.setInt32(16, n, true);
    view.setFloat32(24, 3, true);
    for (let t = 0; t < threads; t++) run(0, t, threads);
    for (let i = 0; i < n + 4; i++) {
      assert.equal(view.getFloat32(y + 4 * i, true), i < n ? 3 * i + 0.5 : 0.5);
    }
  }
});

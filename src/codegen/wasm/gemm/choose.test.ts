import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { hasMemory64, hasRelaxedSimd } from '../features.ts';
import { narrowBlocking, wideBlocking } from './blocking.ts';
import { fastestBlocking } from './choose.ts';

test('gives one of the two tiles, quickly, in either address width', () => {
  for (const address of ['i32', 'i64'] as const) {
    if (address === 'i64' && !hasMemory64()) continue;
    const start = performance.now();
    const blocking = fastestBlocking({ relaxed: hasRelaxedSimd(), address }, 2);
    assert.ok(blocking === narrowBlocking || blocking === wideBlocking);
    assert.ok(performance.now() - start < 5000);
  }
});

test('both tiles give the same bits when V8 joins vectors', () => {
  const script = `
    import { setFlagsFromString } from 'node:v8';
    setFlagsFromString('--experimental-wasm-revectorize');
    setFlagsFromString('--no-liftoff');
    const { emitGemm } = await import('./gemm.ts');
    const { narrowBlocking, wideBlocking } = await import('./blocking.ts');
    const { hasRelaxedSimd } = await import('../features.ts');
    const results = [narrowBlocking, wideBlocking].map((blocking) => {
      const memory = new WebAssembly.Memory({ initial: 64, maximum: 64, shared: true });
      const floats = new Float32Array(memory.buffer);
      for (let i = 0; i < floats.length; i++) floats[i] = ((i * 40503) % 997) / 997 - 0.5;
      const module = new WebAssembly.Module(emitGemm({ relaxed: hasRelaxedSimd(), blocking }));
      const { gemm } = new WebAssembly.Instance(module, { env: { memory } }).exports;
      const [a, b, c] = [1 << 20, 5 << 18, 3 << 19];
      gemm(0, 0, 1, 77, 90, 300, 0.5, a, 300, b, 300, 0.25, c, 100);
      return Buffer.from(new Uint8Array(memory.buffer, c, 77 * 400)).toString('base64');
    });
    console.log(results[0] === results[1] ? 'same' : 'different');`;
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
    cwd: import.meta.dirname,
    encoding: 'utf8',
  });
  assert.equal(output.trim(), 'same');
});

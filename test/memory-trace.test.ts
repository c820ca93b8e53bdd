/** Memory traces: live bytes add up at every event, eager and compiled. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type MemoryTrace,
  type Tensor,
  checkpoint,
  compile,
  currentBackend,
  grad,
  matmul,
  plannedTrace,
  recordMemory,
  scope,
  sum,
  tanh,
  tensor,
} from '../src/index.ts';
import { checkLiveBytes } from './support/backend.ts';

checkLiveBytes();

function addUp(trace: MemoryTrace): void {
  const beside = Object.values(trace.before).reduce((total, bytes) => total + bytes, 0);
  trace.events.forEach(({ live }, event) => {
    let bytes = beside;
    for (const block of trace.blocks) {
      if (block.first === -1 && block.last < event) bytes -= block.bytes;
      else if (block.first >= 0 && block.first <= event && block.last >= event)
        bytes += block.bytes;
    }
    assert.equal(live, bytes, `event ${event}`);
  });
  const highest = Math.max(beside, ...trace.events.map((event) => event.live));
  assert.equal(trace.peak.bytes, highest);
  const categories = Object.values(trace.peak.byCategory).reduce(
    (total, bytes) => total + bytes,
    0,
  );
  assert.equal(categories, highest);
}

function makeStep(): { step: (x: Tensor) => (Tensor | undefined)[]; x: Tensor; w: Tensor } {
  const w = tensor(Float32Array.from({ length: 64 }, Math.sin), {
    shape: [8, 8],
    requiresGrad: true,
  });
  const x = tensor(Float32Array.from({ length: 64 }, Math.cos), { shape: [8, 8] });
  const step = (input: Tensor): (Tensor | undefined)[] => {
    const h = checkpoint((v: Tensor) => tanh(matmul(tanh(matmul(v, w)), w)), [input]);
    const loss = sum(h);
    return [loss.detach(), ...grad(loss, [w])];
  };
  return { step, x, w };
}

test('eager: every event has its op and phase, and live bytes add up', () => {
  scope(() => {
    const { step, x } = makeStep();
    const { trace } = recordMemory('a step', () => scope(() => step(x)));
    addUp(trace);
    assert.equal(trace.execution, 'eager');
    assert.ok(trace.events.some(({ op, phase }) => op === 'matmul' && phase === 'forward'));
    assert.ok(trace.events.some(({ op, phase }) => op !== '' && phase === 'backward'));
    assert.equal(currentBackend().allocator.stats().live > 0, true);
  });
});

test('memory that was there before and is freed under way is a block from -1', () => {
  const early = tensor([1, 2, 3]).keep();
  const { trace } = recordMemory('free', () => early.dispose());
  addUp(trace);
  assert.deepEqual(
    trace.blocks.map(({ first, last }) => [first, last]),
    [[-1, -1]],
  );
});

test('compiled: the plan is the trace, and its peak is what a run takes beside the arena gaps', () => {
  scope(() => {
    const { step, x } = makeStep();
    const compiled = compile(step, { disable: ['planRegions'] });
    try {
      const { plan } = compiled.prepare(x);
      const before = { ...currentBackend().allocator.stats().byCategory };
      const trace = plannedTrace(plan, { title: 'a step', backend: 'cpu', before });
      addUp(trace);
      const beside = Object.values(before).reduce((total, bytes) => total + bytes, 0);
      assert.ok(trace.peak.bytes - beside <= plan.peakBytes);
      assert.ok(trace.blocks.some((block) => block.recomputed === true));
      assert.ok(
        trace.blocks.every(({ offset = 0, bytes }) => offset + bytes <= plan.memory.arenaBytes),
      );
      const alive = trace.blocks.filter(({ first, last }) => first <= 0 && last >= 0);
      assert.ok(alive.length > 0);
    } finally {
      compiled.dispose();
    }
  });
});

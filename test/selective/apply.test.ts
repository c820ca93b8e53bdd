/** Selective checkpointing of a model by setting: what is kept, what is run again, and errors (S4, S5). */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type CheckpointingSpec,
  type SelectiveSpec,
  type Tensor,
  applyActivationCheckpointing,
  backward,
  checkpointName,
  either,
  liveBytes,
  recomputeModules,
  recomputeOps,
  saveAttention,
  saveEverything,
  saveMatmulsExceptEvery,
  saveNames,
  saveNothing,
  saveOps,
  scope,
} from '../../src/index.ts';
import { ArgumentError, CheckpointError, ConfigError } from '../../src/core/errors.ts';
import { hostTensor } from '../../src/core/host-tensor.ts';
import { byteLlama } from '../../src/models/byte-llama.ts';
import type { CausalLm } from '../../src/models/decoder/causal-lm.ts';
import { fromHost } from '../../src/tensor/factory.ts';
import { Generator } from '../../src/tensor/generator.ts';
import { checkLiveBytes } from '../support/backend.ts';
import { countOps } from '../support/op-counter.ts';

checkLiveBytes();

const quiet = { logger: (): void => {} };
const layers = 3;

function model(): CausalLm {
  return byteLlama({ hidden: 32, layers, heads: 2, generator: new Generator(11) });
}

interface Figures {
  /** Bytes held between forward and backward. */
  readonly held: number;
  /** Ops of forward and backward. */
  readonly linear: number;
  readonly attention: number;
}

function run(
  spec: CheckpointingSpec | undefined,
  change: (lm: CausalLm) => void = () => {},
): Figures {
  using lm = model();
  change(lm);
  if (spec) applyActivationCheckpointing(lm, spec, quiet);
  return scope(() => {
    const ids = Array.from({ length: 64 }, (_, i) => (i * 37 + 11) % 256);
    const tokens = fromHost(hostTensor(ids, [2, 32], 'int32'));
    // The first call builds the rotary tables.
    scope(() => lm.call(tokens, { targets: tokens }));
    const start = liveBytes();
    let held = 0;
    const counter = countOps(() => {
      const loss = scope(() => lm.call(tokens, { targets: tokens }) as Tensor);
      held = liveBytes() - start;
      backward(loss);
    });
    const figures = {
      held,
      linear: counter.count('linear'),
      attention: counter.count('attention'),
    };
    for (const parameter of lm.parameters()) parameter.grad = undefined;
    return figures;
  });
}

const none = run(undefined);
const full = run({ mode: 'full' });

/** Projections run again, per layer. */
function again(figures: Figures): number {
  return (figures.linear - none.linear) / layers;
}

test('S4 saving everything is exactly no checkpointing', () => {
  assert.deepEqual(run({ selective: saveEverything() }), none);
  const all: SelectiveSpec = {
    save: ['matmul', 'attention', 'elementwise', 'norm'],
  };
  const listed = run({ selective: all });
  assert.deepEqual({ ...listed, held: 0 }, { ...none, held: 0 });
  assert.equal(listed.held, none.held, 'op by op as well');
  const byFunction = run({ selective: () => true });
  assert.deepEqual(byFunction, none);
});

test('S4 saving nothing is full checkpointing', () => {
  const nothing = run({ selective: saveNothing() });
  assert.equal(nothing.linear, full.linear);
  assert.ok(nothing.held <= full.held);
});

test('S4 matmuls, attention, alternate matmuls', () => {
  assert.deepEqual(
    [again(full), full.attention],
    [6, none.attention + layers],
    'but the last of 7',
  );
  const matmuls = run({ selective: saveOps('matmul') });
  assert.equal(again(matmuls), 0);
  assert.ok(matmuls.held > full.held && matmuls.held < none.held);
  const attention = run({ selective: saveAttention() });
  assert.equal(attention.attention, none.attention);
  // q, k, v, o, gate, up, down: the 2nd, 4th and 6th; the 7th is needed by nobody.
  assert.equal(again(run({ selective: saveMatmulsExceptEvery(2) })), 3);
  const op = run({ ac_mode: 'selective', ac_option: 'op' });
  assert.deepEqual([again(op), op.attention], [3, none.attention]);
  const spec: SelectiveSpec = { save: ['matmul', 'attention'], alternate_matmuls: 2 };
  assert.deepEqual(run({ selective: spec }), op);
});

test('S4 sliding-window attention is attention', () => {
  const windowed = (lm: CausalLm): void => {
    for (const [, module] of lm.namedModules())
      if ('window' in module) Object.assign(module, { window: 4 });
  };
  const figures = run({ selective: saveAttention() }, windowed);
  assert.equal(figures.attention, none.attention);
  assert.equal(run({ mode: 'full' }, windowed).attention, none.attention + layers);
});

test('S4 modules: the deeper pattern counts, and a module counts before an op', () => {
  const spec = (recompute: string): SelectiveSpec => ({ save: 'matmul', recompute });
  assert.equal(again(run({ selective: spec('layers.*.mlp.up_proj') })), 1);
  assert.equal(again(run({ selective: spec('upProj') })), 1, 'by its own name');
  assert.equal(again(run({ selective: spec('layers.0.mlp') })), 2 / layers, 'gate and up');
  assert.equal(
    again(run({ selective: { save: 'layers.*.mlp.up_proj', recompute: 'layers.*.mlp' } })),
    5,
  );
});

test('S4 forced products do not advance the count of alternate ones', () => {
  const spec: SelectiveSpec = { alternate_matmuls: 2, recompute: ['k_proj'] };
  // k is ordered; of q, v, o, gate, up the 2nd and 4th: v and gate.
  assert.equal(again(run({ selective: spec })), 3);
});

test('S4 names', () => {
  const named = (lm: CausalLm): void => {
    for (const [path, module] of lm.namedModules()) {
      if (!path.endsWith('mlp')) continue;
      const forward = module.forward.bind(module) as (x: Tensor) => Tensor;
      Object.assign(module, {
        forward: (x: Tensor) => checkpointName(forward(checkpointName(x, 'mlp_in')), 'mlp_out'),
      });
    }
  };
  const saved = run({ selective: saveNames('mlp_in') }, named);
  assert.equal(saved.linear, full.linear, 'gate and up still feed the activation');
  const fromAttention = run(
    { selective: { save: ['name:mlp_in', 'up_proj', 'gate_proj'] } },
    named,
  );
  assert.equal(again(fromAttention), 4, 'the norm before it reads the residual: q, k, v and o');
  assert.throws(
    () => run({ selective: saveNames('mlp_inn') }, named),
    (e) => e instanceof ConfigError && /'name:mlp_inn' fits nothing.*name:mlp_in/.test(e.message),
  );
  assert.throws(
    () => run({ selective: saveNames('x') }),
    (e) => e instanceof ConfigError && /They mark no names/.test(e.message),
  );
  assert.throws(() => checkpointName(undefined as unknown as Tensor, ''), ArgumentError);
});

test('S5 unknown ops, modules and keys name the nearest', () => {
  const refused = (selective: unknown, pattern: RegExp): void => {
    using lm = model();
    assert.throws(
      () => applyActivationCheckpointing(lm, { selective } as CheckpointingSpec, quiet),
      (e) => {
        assert.ok(e instanceof ConfigError, String(e));
        assert.match(e.message, pattern);
        return true;
      },
    );
  };
  refused({ save: ['matmull'] }, /no op or module 'matmull'.*matmul/);
  refused({ save: ['layers.*.moe.router'] }, /no module 'layers\.\*\.moe\.router'/);
  refused({ save: ['layers.*.mlp.up'] }, /no module.*mlp\.up_proj/);
  refused({ save: ['layers..mlp'] }, /not a pattern/);
  refused({ save: [] }, /'selective\.save' is not legal.*list of ops/);
  refused({ save: [3] }, /'selective\.save'/);
  refused({}, /at least one of save/);
  refused({ saves: ['matmul'] }, /unknown key 'selective\.saves'.*save/);
  refused({ compress: { mlp: 'fp4' } }, /'selective\.compress\.mlp'.*bf16, fp8, int8/);
  refused({ alternate_matmuls: 1 }, /'selective\.alternate_matmuls'.*2 on/);
  refused('ops', /'selective' is not legal.*'op'/);
  refused({ save: ['matmul'], recompute: ['matmul'] }, /'matmul' is told two things/);
  assert.throws(
    () => saveOps('atention'),
    (e) => e instanceof ConfigError && /attention/.test(e.message),
  );
  assert.throws(() => saveOps(), ArgumentError);
  assert.throws(() => saveMatmulsExceptEvery(1), ArgumentError);
});

test('S5 what fits nothing in the whole model is an error', () => {
  assert.throws(
    () => run({ selective: { save: ['matmul', 'cumsum'] } }),
    (e) => e instanceof ConfigError && /'cumsum' fits nothing/.test(e.message),
  );
  assert.throws(
    () => run({ selective: { save: ['matmul', 'lm_head'] } }),
    (e) => e instanceof ConfigError && /'lm_head' fits nothing/.test(e.message),
  );
});

test('S5 contradictions name the value and both rules', () => {
  assert.throws(
    () => run({ selective: either(saveOps('matmul'), recomputeModules('layers.*.mlp')) }),
    (e) =>
      e instanceof CheckpointError &&
      /contradicts itself at linear.*layers\.0\.mlp\.gate_proj.*mustSave and mustRecompute/.test(
        e.message,
      ),
  );
  assert.throws(
    () => run({ selective: { save: '*.gate_proj', recompute: 'mlp.*' } }),
    (e) => e instanceof CheckpointError && /contradict each other at linear/.test(e.message),
  );
  const both = run({ selective: either(saveOps('matmul'), saveAttention()) });
  assert.deepEqual(both, run({ selective: { save: ['matmul', 'attention'] } }));
  assert.equal(again(run({ selective: either(saveOps('matmul'), recomputeOps('rmsNorm')) })), 0);
});

test('S5 applying prints one line', () => {
  using lm = model();
  const { line } = applyActivationCheckpointing(lm, { selective: { save: ['matmul'] } }, quiet);
  assert.match(line, /selective, save matmul; 3 regions: model\.layers\.0/);
});

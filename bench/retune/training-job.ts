/**
 * A model from the stored weights and its training step in all variants. The variants share model and
 * optimizer, so that a large model is in memory once; each starts again from the stored weights.
 */

import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { backward } from '../../src/autograd/backward.ts';
import { type ApplyReport, applyActivationCheckpointing } from '../../src/checkpoint/apply.ts';
import type { CheckpointingSpec } from '../../src/checkpoint/apply-spec.ts';
import { type CompiledStep, compile } from '../../src/compile/compile.ts';
import { hostTensor } from '../../src/core/host-tensor.ts';
import { numElements } from '../../src/core/shape.ts';
import type { SaveFormat } from '../../src/ir/graph.ts';
import type { CausalLm } from '../../src/models/decoder/causal-lm.ts';
import { modelFromConfig } from '../../src/models/from-config.ts';
import { zeroInPlace } from '../../src/ops/in-place.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { currentBackend } from '../../src/tensor/backend.ts';
import { noGrad } from '../../src/tensor/context.ts';
import { fromHost, item } from '../../src/tensor/factory.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { scope } from '../../src/tensor/with-scope.ts';
import { writeTensor } from '../../src/tensor/write.ts';
import { type BenchConfig, modelConfig } from '../configs.ts';
import type { AnswerOf, Checkpointing, Timing, Variant } from '../driver/protocol.ts';
import type { Materials } from '../materials.ts';

export type Step = (tokens: Tensor, targets: Tensor) => Tensor;

export class TrainingJob {
  readonly model: CausalLm;
  readonly tokens: Tensor;
  readonly targets: Tensor;
  readonly #materials: Materials;
  readonly #optimizer: AdamW;
  readonly #compiled = new Map<string, CompiledStep<[Tensor, Tensor], Tensor>>();

  constructor(config: BenchConfig, materials: Materials) {
    this.#materials = materials;
    this.model = modelFromConfig(modelConfig(config), { randomWeights: false });
    this.#optimizer = new AdamW(this.model.namedParameters());
    const { inputs, targets } = readBatch(config, materials.tokensFile);
    const shape = [config.batch, config.sequence];
    this.tokens = fromHost(hostTensor(inputs, shape, 'int32')).keep();
    this.targets = fromHost(hostTensor(targets, shape, 'int32')).keep();
    this.reset();
  }

  get parameterCount(): number {
    let count = 0;
    for (const parameter of this.model.parameters()) count += parameter.size;
    return count;
  }

  /** Back to the stored weights, with an optimizer that has seen no step. */
  reset(): void {
    const parameters = new Map(this.model.namedParameters());
    const file = openSync(this.#materials.weightsFile, 'r');
    try {
      for (const { name, shape, start } of this.#materials.tensors) {
        const parameter = parameters.get(name);
        if (!parameter) throw new RangeError(`bench: the model has no parameter ${name}`);
        const data = new Uint8Array(4 * numElements(shape));
        readSync(file, data, { position: 4 * start });
        writeTensor(parameter, { dtype: 'float32', shape, data });
      }
    } finally {
      closeSync(file);
    }
    const { tensors, groups } = this.#optimizer.stateDict();
    noGrad(() => scope(() => tensors.forEach((state) => zeroInPlace(state))));
    // No entries: every step count goes back to zero, the zeroed tensors stay.
    this.#optimizer.loadStateDict({ tensors: new Map(), steps: {}, groups });
  }

  start(variant: Variant, steps: number): AnswerOf<'start'> {
    this.reset();
    currentBackend().allocator.trim();
    const began = performance.now();
    const losses = [this.step(variant)];
    const firstStepSeconds = (performance.now() - began) / 1000;
    while (losses.length < steps) losses.push(this.step(variant));
    return { losses, firstStepSeconds };
  }

  steps(variant: Variant, warm: number, steps: number): Timing {
    const cpu = process.cpuUsage();
    for (let i = 0; i < warm; i++) this.step(variant);
    const ms = Array.from({ length: steps }, () => {
      const began = performance.now();
      this.step(variant);
      return performance.now() - began;
    });
    const { user, system } = process.cpuUsage(cpu);
    return { ms, cpuSeconds: (user + system) / 1e6 };
  }

  /** Everything that is live before a step outlives it: parameters, optimizer state, batch, tables. */
  memory(variant: Variant): AnswerOf<'memory'> {
    const { allocator } = currentBackend();
    const before = allocator.stats().live;
    allocator.resetPeak();
    this.step(variant);
    const peakBytes = allocator.stats().peak - before;
    const plannedBytes = variant.compiled
      ? this.compiledStep(variant).plans.at(-1)?.peakBytes
      : undefined;
    return plannedBytes === undefined ? { peakBytes } : { peakBytes, plannedBytes };
  }

  /** Runs one step; returns its loss. */
  step(variant: Variant): number {
    return scope(() => {
      const run = variant.compiled ? this.compiledStep(variant) : this.eagerStep(variant);
      return item(run(this.tokens, this.targets));
    });
  }

  eagerStep(variant: Variant): Step {
    this.#checkpoint(variant);
    return this.#body;
  }

  compiledStep(variant: Variant): CompiledStep<[Tensor, Tensor], Tensor> {
    // Each time: a plan is good only for a model that is wrapped as it was when it was made.
    const { compileOptions } = this.#checkpoint(variant);
    const known = this.#compiled.get(variant.checkpointing);
    if (known) return known;
    const made = compile(this.#body, compileOptions);
    this.#compiled.set(variant.checkpointing, made);
    made.prepare(this.tokens, this.targets);
    return made;
  }

  readonly #body: Step = (tokens, targets) => {
    const loss = this.model.call(tokens, { targets });
    backward(loss);
    this.#optimizer.step();
    this.#optimizer.zeroGrad();
    return loss.detach();
  };

  #checkpoint({ checkpointing, compiled }: Variant): ApplyReport {
    return applyActivationCheckpointing(this.model, specOf(checkpointing), {
      logger: () => {},
      compiled,
    });
  }
}

function specOf(checkpointing: Checkpointing): CheckpointingSpec {
  if (checkpointing === 'op') return { mode: 'selective', selective: 'op' };
  const found = /^budget:([^+]+)(?:\+(offload)|\+(.+))?$/.exec(checkpointing);
  if (found) {
    const [, budget, offload, compress] = found;
    return {
      mode: 'budget',
      budget: budget as string,
      ...(offload && { offload: true }),
      ...(compress && { compress: compress as SaveFormat }),
    };
  }
  return { mode: checkpointing === 'full' ? 'full' : 'none' };
}

function readBatch(
  { batch, sequence }: BenchConfig,
  file: string,
): { readonly inputs: Int32Array; readonly targets: Int32Array } {
  const bytes = readFileSync(file);
  const tokens = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const inputs = new Int32Array(batch * sequence);
  const targets = new Int32Array(batch * sequence);
  for (let row = 0; row < batch; row++) {
    const from = row * (sequence + 1);
    inputs.set(tokens.subarray(from, from + sequence), row * sequence);
    targets.set(tokens.subarray(from + 1, from + 1 + sequence), row * sequence);
  }
  return { inputs, targets };
}

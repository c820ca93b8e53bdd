/**
 * Weights and tokens that every contestant loads, written once per run. They come from a fixed
 * generator: mulberry32 seeded with 1234, normal values of deviation 0.02 by the cosine half of
 * Box and Muller's method, ones for norms; after the weights, the tokens.
 *
 * The generator walks each projection input by input ([in, out]); the file holds it as linear layers
 * do ([out, in]).
 */

import { closeSync, openSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { BenchConfig } from './configs.ts';

export interface StoredTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** First element in the file. */
  readonly start: number;
}

export interface Materials {
  /** float32, little-endian, tensor after tensor. */
  readonly weightsFile: string;
  /** int32 [batch, sequence + 1]: inputs are all but the last column, targets all but the first. */
  readonly tokensFile: string;
  readonly elements: number;
  readonly tensors: readonly StoredTensor[];
}

interface TensorRecipe {
  readonly name: string;
  readonly kind: 'norm' | 'projection' | 'table';
  /** As stored. */
  readonly shape: readonly number[];
}

/** Writes the files of `config` into `folder`. */
export function writeMaterials(config: BenchConfig, folder: string): Materials {
  const weightsFile = path.join(folder, `${config.name}-weights.f32`);
  const tokensFile = path.join(folder, `${config.name}-tokens.i32`);
  const random = mulberry32(1234);
  const tensors: StoredTensor[] = [];
  let start = 0;
  const file = openSync(weightsFile, 'w');
  try {
    for (const recipe of recipes(config)) {
      const values = drawTensor(recipe, random);
      writeFileSync(file, new Uint8Array(values.buffer));
      tensors.push({ name: recipe.name, shape: recipe.shape, start });
      start += values.length;
    }
  } finally {
    closeSync(file);
  }
  const tokens = Int32Array.from({ length: config.batch * (config.sequence + 1) }, () =>
    Math.floor(random() * config.vocab),
  );
  writeFileSync(tokensFile, new Uint8Array(tokens.buffer));
  return { weightsFile, tokensFile, elements: start, tensors };
}

/** All tensors in the generator's order, by their Hugging Face names. */
function recipes(config: BenchConfig): TensorRecipe[] {
  const { hidden, heads, kvHeads, headDim, intermediate, vocab } = config;
  const norm = (name: string): TensorRecipe => ({ name, kind: 'norm', shape: [hidden] });
  const project = (name: string, out: number, inputs: number): TensorRecipe => ({
    name,
    kind: 'projection',
    shape: [out, inputs],
  });
  const layers = Array.from({ length: config.layers }, (_, i) => {
    const layer = `model.layers.${i}`;
    return [
      norm(`${layer}.input_layernorm.weight`),
      project(`${layer}.self_attn.q_proj.weight`, heads * headDim, hidden),
      project(`${layer}.self_attn.k_proj.weight`, kvHeads * headDim, hidden),
      project(`${layer}.self_attn.v_proj.weight`, kvHeads * headDim, hidden),
      project(`${layer}.self_attn.o_proj.weight`, hidden, heads * headDim),
      norm(`${layer}.post_attention_layernorm.weight`),
      project(`${layer}.mlp.gate_proj.weight`, intermediate, hidden),
      project(`${layer}.mlp.up_proj.weight`, intermediate, hidden),
      project(`${layer}.mlp.down_proj.weight`, hidden, intermediate),
    ];
  });
  return [
    { name: 'model.embed_tokens.weight', kind: 'table', shape: [vocab, hidden] },
    ...layers.flat(),
    norm('model.norm.weight'),
    ...(config.tied ? [] : [project('lm_head.weight', vocab, hidden)]),
  ];
}

function drawTensor({ kind, shape }: TensorRecipe, random: () => number): Float32Array {
  const [rows = 1, columns = 1] = shape;
  const values = new Float32Array(rows * columns);
  if (kind === 'norm') return values.fill(1);
  const [outer, inner] = kind === 'projection' ? [columns, rows] : [rows, columns];
  for (let i = 0; i < outer; i++) {
    for (let j = 0; j < inner; j++) {
      const radius = Math.sqrt(-2 * Math.log(1 - random()));
      const value = 0.02 * radius * Math.cos(2 * Math.PI * random());
      values[kind === 'projection' ? j * outer + i : i * inner + j] = value;
    }
  }
  return values;
}

/** Uniform numbers in [0, 1): Tommy Ettinger's 32-bit generator, in the public domain. */
export function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

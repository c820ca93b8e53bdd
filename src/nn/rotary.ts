/**
 * Rotary position tables (RoFormer, arXiv 2104.09864) in the layout of Hugging Face models: dimension i
 * is paired with i + D/2. Tables are cos and sin [positions, D/2], computed on the host with the roundings
 * of transformers: inverse frequencies and angles are float32.
 */

import { ArgumentError, invariant } from '../core/errors.ts';
import { hostTensor } from '../core/host-tensor.ts';
import { indexSelect } from '../ops/index/index-select.ts';
import { narrow } from '../ops/slice.ts';
import { eagerMode } from '../tensor/backend.ts';
import { fromHost } from '../tensor/factory.ts';
import { withMode } from '../tensor/mode.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { reshape } from '../ops/broadcast.ts';
import { Module } from './module.ts';
import { buffer } from './parameter.ts';

/** How positions are stretched beyond the length a model was first trained with. */
export type RopeScaling =
  | { readonly kind: 'none' }
  /** Every position divided by `factor`. */
  | { readonly kind: 'linear'; readonly factor: number }
  /** Llama 3.1: low frequencies divided by `factor`, high ones kept, those between blended. */
  | {
      readonly kind: 'llama3';
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositions: number;
    };

/** Inverse frequencies of the D/2 pairs, after scaling, as float32 values. */
export function inverseFrequencies(
  headDim: number,
  theta: number,
  scaling: RopeScaling = { kind: 'none' },
): Float32Array {
  const round = Math.fround;
  const plain = Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const exponent = round((2 * i) / headDim);
    return round(1 / round(theta ** exponent));
  });
  switch (scaling.kind) {
    case 'none':
      return plain;
    case 'linear':
      return plain.map((frequency) => frequency / scaling.factor);
    case 'llama3':
      return plain.map((frequency) => llama3Frequency(frequency, scaling));
  }
}

function llama3Frequency(
  frequency: number,
  scaling: Extract<RopeScaling, { kind: 'llama3' }>,
): number {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositions } = scaling;
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength < originalMaxPositions / highFreqFactor) return frequency;
  if (wavelength > originalMaxPositions / lowFreqFactor) return frequency / factor;
  const smooth =
    (originalMaxPositions / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return ((1 - smooth) * frequency) / factor + smooth * frequency;
}

export interface RotaryTables {
  /** [T, D/2], or [B, T, D/2] for positions that differ by row. */
  readonly cos: Tensor;
  readonly sin: Tensor;
}

export interface RotaryOptions {
  readonly headDim: number;
  /** Base of the frequencies. */
  readonly theta: number;
  readonly scaling?: RopeScaling;
  /** Positions beyond this are an error. */
  readonly maxPositions: number;
}

/** Gives cos and sin for a range of positions. Tables grow in powers of two and are kept. */
export class RotaryEmbedding extends Module<[length: number, start?: number], RotaryTables> {
  readonly headDim: number;
  readonly maxPositions: number;
  readonly #frequencies: Float32Array;
  readonly #tables = new Map<number, RotaryTables>();

  constructor(options: RotaryOptions) {
    super();
    const { headDim, theta, scaling, maxPositions } = options;
    if (headDim % 2 !== 0 || headDim <= 0) {
      throw new ArgumentError(
        `RotaryEmbedding: headDim must be even and positive (got ${headDim}). Change the head size.`,
        { headDim },
      );
    }
    this.headDim = headDim;
    this.maxPositions = maxPositions;
    this.#frequencies = inverseFrequencies(headDim, theta, scaling);
  }

  /** Tables of positions [start, start + length): [length, D/2]. Throws ArgumentError past maxPositions. */
  forward(length: number, start = 0): RotaryTables {
    const end = start + length;
    if (end > this.maxPositions) {
      throw new ArgumentError(
        `RotaryEmbedding: position ${end - 1} is beyond the model's ${this.maxPositions} positions ` +
          `(got ${length} tokens from position ${start}). Use shorter sequences.`,
        { end, maxPositions: this.maxPositions },
      );
    }
    const { cos, sin } = this.#tableOf(end);
    return { cos: narrow(cos, 0, start, length), sin: narrow(sin, 0, start, length) };
  }

  /** Tables of given positions, int32 [B, T]: [B, T, D/2]. Positions must be below maxPositions. */
  at(positions: Tensor): RotaryTables {
    const { cos, sin } = this.#tableOf(this.maxPositions);
    const flat = reshape(positions, [positions.size]);
    const shape = [...positions.shape, this.headDim / 2];
    return {
      cos: reshape(indexSelect(cos, 0, flat), shape),
      sin: reshape(indexSelect(sin, 0, flat), shape),
    };
  }

  protected override onDispose(): void {
    for (const { cos, sin } of this.#tables.values()) {
      cos.dispose();
      sin.dispose();
    }
    this.#tables.clear();
  }

  #tableOf(end: number): RotaryTables {
    let rows = 64;
    while (rows < end) rows *= 2;
    rows = Math.min(rows, this.maxPositions);
    let tables = this.#tables.get(rows);
    if (!tables) {
      // In memory also when the first use is in a traced step, which then captures the table as state.
      tables = withMode(
        () => eagerMode(),
        () => this.#build(rows),
      );
      this.#tables.set(rows, tables);
    }
    return tables;
  }

  #build(rows: number): RotaryTables {
    const half = this.headDim / 2;
    const cos = new Float32Array(rows * half);
    const sin = new Float32Array(rows * half);
    for (let position = 0; position < rows; position++) {
      for (let i = 0; i < half; i++) {
        const frequency = this.#frequencies[i];
        invariant(
          frequency !== undefined,
          () => 'a rotary table has more columns than frequencies',
        );
        const angle = Math.fround(position * frequency);
        cos[position * half + i] = Math.cos(angle);
        sin[position * half + i] = Math.sin(angle);
      }
    }
    const table = (values: Float32Array, name: string): Tensor => {
      const host = hostTensor(values, [rows, half], 'float32');
      const made = buffer(fromHost(host, 'parameter'), { persistent: false });
      made.label = `rotary.${name}.${rows}x${half}`;
      return made;
    };
    return { cos: table(cos, 'cos'), sin: table(sin, 'sin') };
  }
}

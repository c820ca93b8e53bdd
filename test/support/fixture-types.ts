/** What the manifests under test/fixtures hold; scripts/fixtures/README.md says it in words. */

export type FixtureDType =
  | 'float64'
  | 'float32'
  | 'float16'
  | 'bfloat16'
  | 'int32'
  | 'int8'
  | 'bool';

/** One array, row-major. `bytes` is little-endian as stored; `values` the same numbers, exactly. */
export interface FixtureArray {
  readonly dtype: FixtureDType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
  readonly values: Float64Array;
}

/** |got - want| <= rtol * |want| + atolScale * max|want|; both zero means equal. */
export interface Tolerance {
  readonly rtol: number;
  readonly atolScale: number;
}

/** How to make a view operand from the stored base: apply `steps` in order. */
export type ViewStep =
  | readonly ['transpose', axis0: number, axis1: number]
  | readonly ['permute', ...axes: number[]]
  | readonly ['expand', ...shape: number[]]
  | readonly ['slice', axis: number, start: number, stop: number, step: number];

export interface OpInput {
  readonly name: string;
  readonly key: string;
  readonly dtype: FixtureDType;
  /** Shape as the op sees it, after the view. */
  readonly shape: readonly number[];
  readonly view?: {
    readonly base: readonly number[];
    /** In elements, over the base. */
    readonly strides: readonly number[];
    readonly offset: number;
    readonly steps: readonly ViewStep[];
  };
}

export interface OpOutput {
  readonly name: string;
  readonly key: string;
  readonly dtype: FixtureDType;
  readonly shape: readonly number[];
}

export interface OpCase {
  readonly op: string;
  readonly case: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly inputs: readonly OpInput[];
  readonly outputs: readonly OpOutput[];
  /** By output name. */
  readonly cotangents?: Readonly<Record<string, string>>;
  /** By input name; a gradient has the shape the op sees, not the base's. */
  readonly grads?: Readonly<Record<string, string>>;
  /** Keys of the float64 outputs (by name) and gradients (`grad.<input>`) from the same inputs. */
  readonly ref?: Readonly<Record<string, string>>;
  readonly tolerance: Tolerance;
  readonly tags?: readonly string[];
}

export interface ModelManifest {
  readonly family: string;
  readonly storage: 'float32' | 'bfloat16' | 'sharded';
  readonly tied: boolean;
  readonly loss: number;
  readonly loss64: number;
  readonly parameters: Readonly<Record<string, readonly number[]>>;
  /** Largest difference between PyTorch in float32 and in float64. */
  readonly float32Error: {
    readonly logits: number;
    readonly grads: number;
    readonly losses: number;
    readonly finalWeights: number;
  };
  readonly maxAbs: { readonly logits: number; readonly grads: number };
  readonly adamW: {
    readonly lr: number;
    readonly betas: readonly [number, number];
    readonly eps: number;
    readonly weightDecay: number;
    readonly steps: number;
    /** `losses[i]` is the loss before update i. */
    readonly losses: readonly number[];
    readonly losses64: readonly number[];
  };
  /** `samples[i]` is the element at `sampleIndices(count)[i]`. */
  readonly finalWeights: readonly {
    readonly name: string;
    readonly sum: number;
    readonly absSum: number;
    readonly samples: readonly number[];
  }[];
}

export interface OptimizerCase {
  readonly op: 'adamW' | 'sgd';
  readonly case: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly steps: number;
  /** Keys by parameter; `grads`, `steps` and `ref` have a leading axis of steps. */
  readonly parameters: Readonly<
    Record<
      string,
      {
        readonly start: string;
        readonly grads: string;
        readonly steps: string;
        readonly ref: string;
        readonly expAvg?: string;
        readonly expAvgSq?: string;
        readonly momentumBuffer?: string;
      }
    >
  >;
  readonly tolerance: Tolerance;
}

export interface ClippingCase {
  readonly op: 'clipGradNorm';
  readonly case: string;
  readonly params: { readonly maxNorm: number; readonly normType: number | 'infinity' };
  readonly grads: Readonly<Record<string, string>>;
  readonly norm: number;
  readonly clipped: Readonly<Record<string, string>>;
  readonly tolerance: Tolerance;
}

export interface ScheduleCase {
  readonly name: 'cosine' | 'cosineWithMin' | 'linear' | 'constant';
  readonly params: Readonly<Record<string, number>>;
  /** `values[i]`: the factor on the base rate that step i, counted from 0, uses. */
  readonly values: readonly number[];
}

export type GenerationCase =
  | {
      readonly op: 'greedy';
      readonly case: string;
      readonly family: string;
      readonly prompt: readonly number[];
      readonly tokens: readonly number[];
      readonly margin: number;
    }
  | {
      readonly op: 'filter';
      readonly case: string;
      readonly params: {
        readonly temperature?: number;
        readonly topK?: number;
        readonly topP?: number;
        readonly minP?: number;
      };
      readonly logits: string;
      readonly probabilities: string;
      readonly tolerance: Tolerance;
    }
  | {
      readonly op: 'repetitionPenalty';
      readonly case: string;
      readonly params: { readonly penalty: number };
      readonly logits: string;
      readonly seen: string;
      readonly output: string;
      readonly tolerance: Tolerance;
    };

export interface PhiloxVector {
  readonly counter: readonly [number, number, number, number];
  readonly key: readonly [number, number];
  readonly output: readonly [number, number, number, number];
}

export interface TokenizerManifest {
  readonly vocabSize: number;
  readonly bosId: number | null;
  readonly eosId: number | null;
  readonly cases: readonly {
    readonly text: string;
    readonly ids: readonly number[];
    readonly plain: readonly number[];
    readonly decoded: string;
    readonly withSpecial: string;
  }[];
}

/** The manifest of group `G`. */
export type ManifestOf<G extends string> = G extends `ops/${string}`
  ? { readonly cases: readonly OpCase[] }
  : G extends `models/${string}`
    ? ModelManifest
    : G extends `tokenizers/${string}`
      ? TokenizerManifest
      : G extends 'optim/optimizers'
        ? { readonly cases: readonly OptimizerCase[] }
        : G extends 'optim/clipping'
          ? { readonly cases: readonly ClippingCase[] }
          : G extends 'optim/schedules'
            ? { readonly cases: readonly ScheduleCase[] }
            : G extends 'generation'
              ? { readonly cases: readonly GenerationCase[] }
              : G extends 'philox'
                ? {
                    readonly published: readonly PhiloxVector[];
                    readonly run: readonly PhiloxVector[];
                  }
                : never;

/** How parameters start: functions from shape and dtype to a fresh tensor. */

import type { DType } from '../core/dtype.ts';
import type { Shape } from '../core/shape.ts';
import { full, zeros } from '../ops/creation.ts';
import { normal, uniform } from '../ops/random.ts';
import { noGrad } from '../tensor/context.ts';
import { type Generator, defaultGenerator } from '../tensor/generator.ts';
import type { Tensor } from '../tensor/tensor.ts';

export type Initializer = (shape: Shape, dtype: DType) => Tensor;

/** Every element 0 (torch.nn.init.zeros_). */
export const zerosInit: Initializer = (shape, dtype) => zeros(shape, { dtype });

/** Every element 1 (torch.nn.init.ones_). */
export const onesInit: Initializer = (shape, dtype) => full(shape, 1, { dtype });

export interface NormalInitOptions {
  readonly mean?: number;
  /** Default 0.02. */
  readonly std?: number;
  readonly generator?: Generator;
}

/** Independent normal values (torch.nn.init.normal_). */
export function normalInit(options: NormalInitOptions = {}): Initializer {
  const { mean = 0, std = 0.02, generator = defaultGenerator } = options;
  return (shape, dtype) => noGrad(() => normal(shape, { mean, std, dtype, generator }));
}

export interface UniformInitOptions {
  readonly low: number;
  readonly high: number;
  readonly generator?: Generator;
}

/** Independent values in [low, high) (torch.nn.init.uniform_). */
export function uniformInit(options: UniformInitOptions): Initializer {
  const { low, high, generator = defaultGenerator } = options;
  return (shape, dtype) => noGrad(() => uniform(shape, { low, high, dtype, generator }));
}

/** What torch.nn.Linear starts with: uniform within 1 / sqrt(inputs), for weight and bias alike. */
export function linearInit(inputs: number, generator: Generator = defaultGenerator): Initializer {
  const bound = 1 / Math.sqrt(Math.max(1, inputs));
  return uniformInit({ low: -bound, high: bound, generator });
}

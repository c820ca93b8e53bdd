/** The feed-forward halves of transformer layers. Their projections are given, so any can be replaced. */

import { gelu, geluTanh, silu, swiglu } from '../ops/activations.ts';
import { mul } from '../ops/arithmetic.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Module } from './module.ts';

/** A module from one tensor to one of equal leading shape. */
export type TensorModule = Module<[x: Tensor], Tensor>;

export type Activation = 'silu' | 'gelu' | 'gelu_tanh';

const activations: Readonly<Record<Activation, (x: Tensor) => Tensor>> = {
  silu,
  gelu,
  gelu_tanh: geluTanh,
};

export interface GatedMlpParts {
  readonly gateProj: TensorModule;
  readonly upProj: TensorModule;
  readonly downProj: TensorModule;
  /** Default silu, which makes it SwiGLU (arXiv 2002.05202). */
  readonly activation?: Activation;
}

/** x [..., hidden] -> [..., hidden]: down(activation(gate(x)) * up(x)). */
export class GatedMlp extends Module<[x: Tensor], Tensor> {
  readonly gateProj: TensorModule;
  readonly upProj: TensorModule;
  readonly downProj: TensorModule;
  readonly activation: Activation;

  constructor(parts: GatedMlpParts) {
    super();
    this.gateProj = parts.gateProj;
    this.upProj = parts.upProj;
    this.downProj = parts.downProj;
    this.activation = parts.activation ?? 'silu';
  }

  forward(x: Tensor): Tensor {
    const gate = this.gateProj.call(x);
    const up = this.upProj.call(x);
    if (this.activation === 'silu') return this.downProj.call(swiglu(gate, up));
    return this.downProj.call(mul(activations[this.activation](gate), up));
  }
}

export interface MlpParts {
  readonly upProj: TensorModule;
  readonly downProj: TensorModule;
  /** Default gelu. */
  readonly activation?: Activation;
}

/** x [..., hidden] -> [..., hidden]: down(activation(up(x))), as in GPT-2. */
export class Mlp extends Module<[x: Tensor], Tensor> {
  readonly upProj: TensorModule;
  readonly downProj: TensorModule;
  readonly activation: Activation;

  constructor(parts: MlpParts) {
    super();
    this.upProj = parts.upProj;
    this.downProj = parts.downProj;
    this.activation = parts.activation ?? 'gelu';
  }

  forward(x: Tensor): Tensor {
    return this.downProj.call(activations[this.activation](this.upProj.call(x)));
  }
}

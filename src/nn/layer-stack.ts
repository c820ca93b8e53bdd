/**
 * The layers of a transformer, run in order. Checkpointing can make one region of several consecutive
 * layers; the hidden state then passes from region to region.
 */

import { type StackRegion, wrapperImage } from '../checkpoint/wrapping.ts';
import { type HostState, noteRead, noteWrite } from '../tensor/host-state.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type AnyModule, Module } from './module.ts';

/** `E`: what every layer gets besides the hidden state. */
export class LayerStack<E extends readonly unknown[] = []> extends Module<
  [x: Tensor, ...extra: E],
  Tensor
> {
  readonly layers: readonly Module<[x: Tensor, ...extra: E], Tensor>[];
  #regions: readonly StackRegion[] | undefined;

  constructor(layers: Iterable<Module<[x: Tensor, ...extra: E], Tensor>>) {
    super();
    this.layers = [...layers];
  }

  /** Set by checkpointing: runs of layers that are one region each; undefined for none. */
  get regions(): readonly StackRegion[] | undefined {
    noteRead(this, LayerStack.regionsState);
    return this.#regions;
  }

  set regions(value: readonly StackRegion[] | undefined) {
    noteWrite(this, LayerStack.regionsState);
    this.#regions = value;
  }

  override *children(): Generator<[string, AnyModule]> {
    for (const [i, layer] of this.layers.entries()) yield [String(i), layer];
  }

  forward(x: Tensor, ...extra: E): Tensor {
    let hidden = x;
    for (const { from, to, wrapper } of this.regions ?? [whole(this.layers.length)]) {
      const run = (value: Tensor, ...rest: E): Tensor => this.#range(from, to, value, rest);
      const next = wrapper ? wrapper(run, [hidden, ...extra]) : run(hidden, ...extra);
      if (hidden !== x && hidden !== next) hidden.dispose();
      hidden = next;
    }
    return hidden;
  }

  /** A layer's input is not needed by the caller once the layer ran; backward holds its own share. */
  #range(from: number, to: number, x: Tensor, extra: E): Tensor {
    let hidden = x;
    for (const layer of this.layers.slice(from, to)) {
      const next = layer.call(hidden, ...extra);
      if (hidden !== x && hidden !== next) hidden.dispose();
      hidden = next;
    }
    return hidden;
  }

  static readonly regionsState: HostState<LayerStack<never>, readonly StackRegion[] | undefined> = {
    describe: (stack) => `regions of ${stack.describe()}`,
    get: (stack) => stack.#regions,
    set: (stack, value) => {
      stack.#regions = value;
    },
    image: regionsImage,
    sameImage: (value, image) => {
      const now = regionsImage(value);
      const known = image as typeof now;
      return now.length === known.length && now.every((part, i) => part === known[i]);
    },
    show: (image) => `${(image as readonly unknown[]).length / 3} regions`,
  };
}

/** Bounds and wrapper of each region. */
function regionsImage(regions: readonly StackRegion[] | undefined): readonly unknown[] {
  return (regions ?? []).flatMap(({ from, to, wrapper }) => [from, to, wrapperImage(wrapper)]);
}

function whole(count: number): { from: number; to: number; wrapper?: undefined } {
  return { from: 0, to: count };
}

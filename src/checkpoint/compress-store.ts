/**
 * Compression (docs/internals/offload.md O3): saved floats wait for backward in fewer bits. Encoding and
 * decoding are ops, so this works in compiled steps too, where the plan then holds the small form. What
 * is stored is itself saved through the hooks around, so it can be offloaded, or belong to a region.
 */

import { isFloat } from '../core/dtype.ts';
import { CompileError } from '../core/errors.ts';
import { isContiguous, numElements } from '../core/shape.ts';
import { type Aval, avalBytes } from '../ir/aval.ts';
import type { SaveFormat } from '../ir/graph.ts';
import { apply } from '../tensor/apply.ts';
import { noGrad } from '../tensor/context.ts';
import { BufferData, type TensorData } from '../tensor/data.ts';
import { currentMode } from '../tensor/mode.ts';
import {
  type HeldValue,
  type SaveContext,
  SavedTensor,
  type SavedTensorHooks,
  checkVersion,
  withSavedTensorHooks,
} from '../tensor/saved-tensor.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { decode, encode, encodedBytes } from './codec.ts';
import { type CompressionError, ErrorTally } from './compression-error.ts';
import type { ValueStore } from './value-store.ts';

/**
 * bf16: half the bytes of float32, relative error at most 2^-8. fp8: e4m3 with a scale per block, a bit
 * over a quarter, relative error at most 2^-4 for all but the smallest of a block. int8: as many bytes,
 * with a scale per block, error at most 1/254 of the block's largest.
 */
export type CompressionFormat = SaveFormat;

export interface CompressionSettings {
  readonly format: CompressionFormat;
  /** Smaller tensors stay as they are. */
  readonly minBytes: number;
  /** Compare each value with what it decodes to. Reads results back, so not in compiled steps. */
  readonly measure: boolean;
}

export interface CompressionStats {
  /** Saved tensors in the store now, and those of them that were left as they are. */
  readonly values: number;
  readonly stayed: number;
  /** Bytes of what was compressed so far, as it was and as it is stored. */
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  /** Errors introduced so far; undefined unless they are measured. */
  readonly error: CompressionError | undefined;
}

/** Counts of one store, or of several that count together. */
export class CompressionCounts {
  values = 0;
  stayed = 0;
  bytesBefore = 0;
  bytesAfter = 0;
  readonly errors: ErrorTally = new ErrorTally();
}

/** A compressed form, shared by all who saved the same tensor. */
interface Encoded {
  readonly source: Tensor['data'];
  readonly version: number;
  readonly aval: Aval;
  /** Codes, and scales for the formats with blocks. */
  readonly parts: readonly SavedTensor[];
  handles: number;
}

export interface CompressedHandle {
  readonly aval: Aval;
  /** Not owned: tells of in-place changes. */
  readonly data: TensorData;
  readonly version: number;
  readonly context: SaveContext;
  readonly value: Encoded | SavedTensor;
}

export class CompressStore implements ValueStore<CompressedHandle> {
  readonly counts: CompressionCounts;
  readonly #settings: CompressionSettings;
  readonly #outer: SavedTensorHooks | undefined;
  /** A region around compares what is saved in forward and recompute, so each save must be its own there. */
  readonly #shares: boolean;
  readonly #byRoot = new Map<object, Encoded>();

  /** `outer`: hooks that what is stored is saved through. */
  constructor(
    settings: CompressionSettings,
    outer?: SavedTensorHooks,
    counts: CompressionCounts = new CompressionCounts(),
  ) {
    this.#settings = settings;
    this.#outer = outer;
    this.#shares = outer === undefined || outer.independent === true;
    this.counts = counts;
  }

  put(tensor: Tensor, context: SaveContext): CompressedHandle {
    const { aval, data, version } = tensor;
    const handle = { aval, data, version, context };
    this.counts.values++;
    if (!this.#isWorthwhile(tensor, context)) {
      this.counts.stayed++;
      return { ...handle, value: this.#save(tensor, context) };
    }
    const known = this.#shares ? this.#byRoot.get(data.root) : undefined;
    const value = known && isSame(known, tensor) ? known : this.#encode(tensor, context);
    value.handles++;
    return { ...handle, value };
  }

  get({ value, data, version, context, aval }: CompressedHandle): Tensor {
    checkVersion(data.version, version, context);
    if (value instanceof SavedTensor) return value.unpack(undefined);
    const { format } = this.#settings;
    return noGrad(() =>
      scope(() => {
        const parts = value.parts.map((part) => part.unpack(undefined));
        return decode(apply, parts, aval, format);
      }),
    );
  }

  drop({ value }: CompressedHandle): void {
    this.counts.values--;
    if (value instanceof SavedTensor) {
      this.counts.stayed--;
      value.release();
      return;
    }
    value.handles--;
    if (value.handles > 0) return;
    const { root } = value.source;
    if (this.#byRoot.get(root) === value) this.#byRoot.delete(root);
    for (const part of value.parts) part.release();
  }

  held({ value }: CompressedHandle): readonly HeldValue[] {
    return value instanceof SavedTensor ? [value] : value.parts;
  }

  #isWorthwhile(tensor: Tensor, context: SaveContext): boolean {
    const { format, minBytes } = this.#settings;
    const { aval, data } = tensor;
    const before = avalBytes(aval);
    if (!isFloat(aval.dtype) || before < minBytes || context.exact) return false;
    if (data.outlivesStep) return false;
    const after = encodedBytes(aval, format);
    // What repeats along axes of stride 0 is small already.
    const held = data instanceof BufferData ? Math.min(before, data.storage.bytes) : before;
    return after !== undefined && after < held;
  }

  #encode(tensor: Tensor, context: SaveContext): Encoded {
    const { format, measure } = this.#settings;
    if (measure && currentMode().tracing) {
      throw new CompileError(
        'compressActivations: errors cannot be measured in a compiled step (got measure: true). ' +
          'Measure in a step that is not compiled.',
      );
    }
    const { aval, data, version } = tensor;
    const parts = this.#apart(() => {
      const made = encode(apply, tensor.detach(), aval, format);
      if (measure) this.counts.errors.add(tensor, decode(apply, made, aval, format));
      this.counts.bytesBefore += avalBytes(aval);
      for (const part of made) this.counts.bytesAfter += avalBytes(part.aval);
      return made.map((part) => this.#save(part, context));
    });
    const encoded: Encoded = { source: data, version, aval, parts, handles: 0 };
    this.#byRoot.set(data.root, encoded);
    return encoded;
  }

  #save(tensor: Tensor, context: SaveContext): SavedTensor {
    return withSavedTensorHooks(this.#outer, () => new SavedTensor(tensor, context));
  }

  /** Ops that are no part of the user's computation. */
  #apart<T>(body: () => T): T {
    return withSavedTensorHooks(undefined, () => noGrad(() => scope(body)));
  }
}

/** Whether `tensor` has the elements of what was encoded, in the same order. */
function isSame({ source, version, aval }: Encoded, tensor: Tensor): boolean {
  const { data, shape } = tensor;
  if (tensor.version !== version || numElements(shape) !== numElements(aval.shape)) return false;
  if (!(source instanceof BufferData) || !(data instanceof BufferData)) return source === data;
  if (source.layout.offset !== data.layout.offset) return false;
  const [a, b] = [source.layout.strides, data.layout.strides];
  const dense = isContiguous(aval.shape, a) && isContiguous(shape, b);
  return dense || (shape.join() === aval.shape.join() && a.join() === b.join());
}

/** The eager mode: each op becomes one kernel launch, run at once on the current backend. */

import { type DType, bytesPerElement } from '../core/dtype.ts';
import { definite, invariant, RetuneError, ShapeError } from '../core/errors.ts';
import type { HostTensor } from '../core/host-tensor.ts';
import { type Layout, type Shape, contiguousStrides, isContiguous } from '../core/shape.ts';
import { type Aval, avalBytes, formatAval } from '../ir/aval.ts';
import { bindTemplate } from '../ir/lowering.ts';
import {
  type AnyOp,
  type KernelTemplate,
  type Operand,
  type Params,
  type Routine,
  paramsKey,
} from '../ir/op.ts';
import type { MemoryCategory } from '../runtime/allocator.ts';
import type { Backend, BlockRef, Executable, Lowered } from '../runtime/backend.ts';
import { currentPhase } from './context.ts';
import { denseCopyTemplate } from './copy-template.ts';
import { BufferData, type TensorData } from './data.ts';
import type { Generator } from './generator.ts';
import { type Mode, currentMode } from './mode.ts';
import { Storage } from './storage.ts';
import { Tensor } from './tensor.ts';

interface Prepared {
  readonly executable: Executable;
  readonly scalars: readonly number[];
}

const cacheLimit = 8192;

export class EagerMode implements Mode {
  readonly tracing = false;
  readonly backend: Backend;
  readonly #prepared = new Map<string, Prepared>();

  constructor(backend: Backend) {
    this.backend = backend;
  }

  run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    try {
      return op.lower.kind === 'view'
        ? [this.#view(op, inputs, params, outputs)]
        : this.#compute(op, inputs, params, outputs);
    } catch (error) {
      if (error instanceof RetuneError && error.code === 'out-of-memory') {
        error.message = `${op.name}(${inputs.map((x) => formatAval(x.aval)).join(', ')}): ${error.message}`;
      }
      throw error;
    }
  }

  fromHost(tensor: HostTensor, category: MemoryCategory): TensorData {
    const data = this.#allocate(tensor, category);
    return releasingOnError(data, () => {
      this.backend.write({ block: data.storage.block, byteOffset: 0 }, tensor.data, tensor.dtype);
      return data;
    });
  }

  toHost(tensor: Tensor): Uint8Array {
    return this.#withDense(tensor, (ref) =>
      this.backend.read(ref, avalBytes(tensor.aval), tensor.dtype),
    );
  }

  toHostAsync(tensor: Tensor): Promise<Uint8Array> {
    return this.#withDense(tensor, (ref) =>
      this.backend.readAsync(ref, avalBytes(tensor.aval), tensor.dtype),
    );
  }

  onEachRun(work: () => void): void {
    work();
  }

  drawState(generator: Generator): { readonly state: Tensor; readonly draw: number } {
    const host = generator.stateTensor(generator.advance());
    const data = currentMode().fromHost(host, 'temporary');
    return { state: new Tensor(data, host.shape, host.dtype), draw: 0 };
  }

  #view(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): TensorData {
    invariant(op.lower.kind === 'view', () => `${op.name} is not a view`);
    const input = definite(inputs[0]);
    const output = definite(outputs[0]);
    const data = bufferOf(input);
    const layout = op.lower.view(input.aval, data.layout, output, params);
    if (layout) return new BufferData(data.storage.retain(), layout);
    const copy = this.#dense(data, input.aval);
    const { view } = op.lower;
    return releasingOnError(copy, () => {
      const again = view(input.aval, copy.layout, output, params);
      invariant(again, () => `${op.name} cannot view a dense tensor`);
      return new BufferData(copy.storage, again);
    });
  }

  #compute(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    const owned: BufferData[] = [];
    const results: BufferData[] = [];
    try {
      const sources = inputs.map((input, i) => {
        const data = bufferOf(input);
        if (readableAsIs(op, inputs, i, params)) return data;
        const dense = this.#dense(data, input.aval);
        owned.push(dense);
        return dense;
      });
      outputs.forEach((aval, k) => {
        const updated = op.traits.updates?.find((pair) => pair.out === k)?.input;
        if (updated !== undefined) refuseOverlap(op, aval, definite(sources[updated]));
        results.push(
          updated === undefined
            ? this.#allocate(aval, categoryOfPhase())
            : definite(sources[updated]).retain(),
        );
      });
      const key = preparedKey(op, inputs, sources, results, params);
      const prepared =
        this.#prepared.get(key) ??
        this.#prepare(key, op, inputs, sources, results, outputs, params);
      const operands = [
        ...sources.map((data, i) => refOf(data, definite(inputs[i]).dtype)),
        ...results.map((data, i) => refOf(data, definite(outputs[i]).dtype)),
      ];
      this.backend.launch(prepared.executable, prepared.scalars, operands);
      return results;
    } catch (error) {
      for (const data of results) data.release();
      throw error;
    } finally {
      for (const data of owned) data.release();
    }
  }

  #prepare(
    key: string,
    op: AnyOp,
    inputs: readonly Tensor[],
    sources: readonly BufferData[],
    results: readonly BufferData[],
    outputs: readonly Aval[],
    params: Params,
  ): Prepared {
    const inputOperands = inputs.map((x, i) => operandOf(x.aval, definite(sources[i])));
    const outputOperands = outputs.map((aval, i) => operandOf(aval, definite(results[i])));
    const lowered = lowerOp(op, inputOperands, outputOperands, params);
    const scalars = lowered.kind === 'kernel' ? lowered.scalars : [];
    const prepared = { executable: this.backend.prepare(lowered), scalars };
    if (this.#prepared.size >= cacheLimit) {
      for (const oldest of this.#prepared.keys()) {
        this.#prepared.delete(oldest);
        break;
      }
    }
    this.#prepared.set(key, prepared);
    return prepared;
  }

  #allocate(aval: Aval, category: MemoryCategory): BufferData {
    const storage = Storage.allocate(this.backend, avalBytes(aval), category);
    return new BufferData(storage, { offset: 0, strides: contiguousStrides(aval.shape) });
  }

  /** A dense row-major copy, owned by the caller. */
  #dense(data: BufferData, aval: Aval): BufferData {
    const copy = this.#allocate(aval, categoryOfPhase());
    return releasingOnError(copy, () => {
      const lowered = lowerTemplate(
        denseCopyTemplate(aval),
        [operandOf(aval, data)],
        [operandOf(aval, copy)],
      );
      const operands = [refOf(data, aval.dtype), refOf(copy, aval.dtype)];
      this.backend.launch(this.backend.prepare(lowered), [], operands);
      return copy;
    });
  }

  #withDense<T>(tensor: Tensor, read: (ref: BlockRef) => T): T {
    const data = bufferOf(tensor);
    if (isContiguous(tensor.shape, data.layout.strides)) return read(refOf(data, tensor.dtype));
    const dense = this.#dense(data, tensor.aval);
    try {
      return read(refOf(dense, tensor.dtype));
    } finally {
      dense.release();
    }
  }
}

/** Turns an op with placed operands into a backend's input. Views have no code. */
export function lowerOp(
  op: AnyOp,
  inputs: readonly Operand[],
  outputs: readonly Operand[],
  params: Params,
): Lowered {
  const lower = op.lower;
  if (lower.kind === 'routine') {
    return { kind: 'routine', name: op.name, routine: lower.routine, inputs, outputs, params };
  }
  invariant(lower.kind === 'kernel', () => `${op.name} runs no code (it is a ${lower.kind})`);
  const avals = (list: readonly Operand[]): Aval[] => list.map((operand) => operand.aval);
  return lowerTemplate(lower.template(avals(inputs), avals(outputs), params), inputs, outputs);
}

export function lowerTemplate(
  template: KernelTemplate,
  inputs: readonly Operand[],
  outputs: readonly Operand[],
): Lowered {
  return {
    kind: 'kernel',
    spec: bindTemplate(template, inputs, outputs),
    scalars: (template.scalars ?? []).map((scalar) => scalar.value),
  };
}

/** Whether a routine reads this operand as it lies; otherwise it must be made dense first. */
export function acceptsLayout(
  routine: Routine<Params>,
  operand: number,
  input: { readonly shape: readonly number[] },
  data: { readonly layout: Operand['layout'] },
  params: Params,
): boolean {
  const { strides } = data.layout;
  if (isContiguous(input.shape, strides)) return true;
  return routine.acceptsLayout?.(operand, input.shape, strides, params) ?? false;
}

/**
 * Whether the kernel can read input `i` where it lies; otherwise it gets a dense copy. Throws ShapeError
 * for an input that is to be changed in place and lies so that it cannot be.
 */
function readableAsIs(op: AnyOp, inputs: readonly Tensor[], i: number, params: Params): boolean {
  const input = definite(inputs[i]);
  const { layout, root } = bufferOf(input);
  const { updates = [] } = op.traits;
  const accepted =
    op.lower.kind !== 'routine' || acceptsLayout(op.lower.routine, i, input, { layout }, params);
  if (updates.some((pair) => pair.input === i)) {
    const repeats = input.shape.some((dim, axis) => dim > 1 && layout.strides[axis] === 0);
    if (accepted && !repeats) return true;
    throw new ShapeError(
      `${op.name}: it cannot change this view in place (got ${input.describe()} with strides [${layout.strides.join(', ')}]). ` +
        'Change the whole tensor, or a contiguous copy.',
    );
  }
  // Another view of memory that the kernel overwrites must be read as it was before.
  const overwritten = updates.some(({ input: target }) => {
    const other = inputs[target] && bufferOf(inputs[target]);
    return other?.root === root && !sameLayout(input.shape, layout, other.layout);
  });
  return accepted && !overwritten;
}

function sameLayout(shape: Shape, a: Layout, b: Layout): boolean {
  if (a.offset !== b.offset || a.strides.length !== b.strides.length) return false;
  return shape.every((dim, axis) => dim === 1 || a.strides[axis] === b.strides[axis]);
}

function releasingOnError<T>(data: BufferData, body: () => T): T {
  try {
    return body();
  } catch (error) {
    data.release();
    throw error;
  }
}

/** An expanded tensor has several elements in one place: which of them is written last is chance. */
function refuseOverlap(op: AnyOp, aval: Aval, { layout }: BufferData): void {
  const axis = layout.strides.findIndex((stride, i) => stride === 0 && (aval.shape[i] ?? 1) > 1);
  if (axis < 0) return;
  throw new ShapeError(
    `${op.name}: several elements of the tensor that is changed lie in one place of memory (got ${formatAval(aval)}, ` +
      `expanded along axis ${axis}). Clone it first.`,
    { x: aval, axis },
  );
}

function bufferOf(tensor: Tensor): BufferData {
  const data = tensor.data;
  invariant(
    data instanceof BufferData,
    () => `${tensor.describe()} belongs to a traced step and was used outside it`,
  );
  return data;
}

/** Kernels see operands from their first element on: the view's offset goes into the pointer. */
function operandOf(aval: Aval, data: BufferData): Operand {
  return { aval, layout: { offset: 0, strides: data.layout.strides } };
}

function refOf(data: BufferData, dtype: DType): BlockRef {
  return {
    block: data.storage.block,
    byteOffset: data.layout.offset * bytesPerElement(dtype),
  };
}

function categoryOfPhase(): MemoryCategory {
  const phase = currentPhase();
  return phase === 'forward' ? 'activation' : 'temporary';
}

function preparedKey(
  op: AnyOp,
  inputs: readonly Tensor[],
  sources: readonly BufferData[],
  results: readonly BufferData[],
  params: Params,
): string {
  let key = `${op.name} ${paramsKey(params)}`;
  sources.forEach((data, i) => {
    const input = definite(inputs[i]);
    key += `|${input.dtype}[${input.shape}](${data.layout.strides})`;
  });
  // Fresh outputs are dense and follow from the rest; an updated input's layout is already in the key.
  return `${key}>${results.length}`;
}

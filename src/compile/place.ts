/**
 * Placing: gives every value a buffer and a layout, turns fused steps into lowered kernels, inserts the
 * copies that layouts force, and lets outputs take over the memory of inputs that die.
 */

import { type DType, bytesPerElement } from '../core/dtype.ts';
import { invariant, definite } from '../core/errors.ts';
import type { HostTensor } from '../core/host-tensor.ts';
import { type Layout, contiguousStrides, isContiguous, sameShape } from '../core/shape.ts';
import { type Aval, avalBytes } from '../ir/aval.ts';
import { type Graph, type Node, type Value, liveOutputs } from '../ir/graph.ts';
import type { Operand } from '../ir/op.ts';
import { alignBytes } from '../runtime/allocator.ts';
import type { Lowered, TransferStep } from '../runtime/backend.ts';
import { denseCopyTemplate } from '../tensor/copy-template.ts';
import { acceptsLayout, lowerOp, lowerTemplate } from '../tensor/eager-mode.ts';
import { baseOf } from './base-value.ts';
import type { FusedStep } from './fuse.ts';
import type { KernelGroup } from './kernel-group.ts';
import {
  type BufferKind,
  type PlacedBuffer,
  type PlacedOperand,
  type PlacedStep,
  type Placement,
  setLifetimes,
} from './placement.ts';

interface Place {
  readonly buffer: PlacedBuffer;
  readonly layout: Layout;
}

/** `keepStored`: what is being copied out of memory is not written over, so that nobody has to wait for the copy. */
export function place(
  graph: Graph,
  steps: readonly FusedStep[],
  { keepStored = false }: { readonly keepStored?: boolean } = {},
): Placement {
  const placer = new Placer(graph, steps, keepStored);
  steps.forEach((step, index) => {
    placer.step(step, index);
  });
  return placer.finish();
}

class Placer {
  readonly #graph: Graph;
  readonly #places = new Map<Value, Place>();
  /** Values that lie in each buffer. */
  readonly #residents = new Map<PlacedBuffer, Value[]>();
  readonly #buffers: PlacedBuffer[] = [];
  readonly #steps: PlacedStep[] = [];
  readonly #constants: { buffer: PlacedBuffer; tensor: HostTensor }[] = [];
  /** For each fused step: the buffers' values are last read there (views followed to their base). */
  readonly #lastRead: Map<Value, number>;
  readonly #live: Set<Value>;
  /** Numbers of what was stored, by token. */
  readonly #parcels = new Map<Value, number>();

  /** Buffers that are not given to outputs. */
  readonly #kept = new Set<PlacedBuffer>();
  readonly #keepStored: boolean;

  constructor(graph: Graph, steps: readonly FusedStep[], keepStored: boolean) {
    this.#keepStored = keepStored;
    this.#graph = graph;
    this.#live = withBases(liveOutputs(graph));
    this.#lastRead = lastReads(steps);
  }

  step(step: FusedStep, index: number): void {
    if (step.kind === 'source') this.#source(step.node);
    else if (step.kind === 'view') this.#view(step.node);
    else if (step.kind === 'kernel') this.#kernel(step.group, index);
    else if (step.kind === 'transfer') this.#transfer(step.node);
    else this.#routine(step.node, index);
  }

  finish(): Placement {
    const results = this.#graph.results.map((value) => this.#result(value));
    const buffersOf = new Map<Value, PlacedBuffer>();
    for (const [value, where] of this.#places) buffersOf.set(value, where.buffer);
    setLifetimes(this.#buffers, this.#steps);
    return {
      steps: this.#steps,
      buffers: this.#buffers,
      results,
      buffersOf,
      constants: this.#constants,
    };
  }

  #buffer(value: Value, kind: BufferKind): PlacedBuffer {
    const buffer: PlacedBuffer = {
      id: this.#buffers.length,
      kind,
      bytes: alignBytes(avalBytes(value.aval)),
      value,
      first: Number.POSITIVE_INFINITY,
      last: -1,
    };
    this.#buffers.push(buffer);
    return buffer;
  }

  #at(value: Value): Place {
    const found = this.#places.get(value);
    invariant(found, () => `value %${value.node.id}.${value.index} has no place`);
    return found;
  }

  #settle(value: Value, where: Place): void {
    this.#places.set(value, where);
    const residents = this.#residents.get(where.buffer);
    if (residents) residents.push(value);
    else this.#residents.set(where.buffer, [value]);
  }

  #dense(value: Value, kind: BufferKind = 'arena'): Place {
    const buffer = this.#buffer(value, kind);
    return { buffer, layout: { offset: 0, strides: contiguousStrides(value.aval.shape) } };
  }

  #source(node: Node): void {
    const value = definite(node.outputs[0]);
    const kind = node.kind === 'state' ? 'state' : node.kind === 'constant' ? 'constant' : 'input';
    const made = this.#dense(value, kind);
    this.#settle(value, made);
    if (node.constant) this.#constants.push({ buffer: made.buffer, tensor: node.constant });
  }

  #view(node: Node): void {
    const input = definite(node.inputs[0]);
    const output = definite(node.outputs[0]);
    invariant(node.op?.lower.kind === 'view', () => 'a view step without a view');
    const base = this.#at(input);
    const layout = node.op.lower.view(input.aval, base.layout, output.aval, node.params);
    if (layout) {
      this.#settle(output, { buffer: base.buffer, layout });
      return;
    }
    const copy = this.#copy(input, base);
    const again = node.op.lower.view(input.aval, copy.layout, output.aval, node.params);
    invariant(again, () => `${node.op?.name} cannot view a dense tensor`);
    this.#settle(output, { buffer: copy.buffer, layout: again });
  }

  /** A dense copy of `value` in a buffer of its own. */
  #copy(value: Value, from: Place, kind: BufferKind = 'arena'): Place {
    const copy = this.#dense(value, kind);
    this.#emit(
      lowerTemplate(
        denseCopyTemplate(value.aval),
        [operand(value.aval, from)],
        [operand(value.aval, copy)],
      ),
      [ref(value.aval, from), ref(value.aval, copy)],
      'copy',
      [],
    );
    return copy;
  }

  #kernel(group: KernelGroup, index: number): void {
    const inputs = group.operands.map((value) => this.#at(value));
    const outputs: Place[] = [];
    const targets = group.outputs.map(({ value: { node, index: out } }) => {
      const updated = node.op?.traits.updates?.find((pair) => pair.out === out);
      return updated && definite(node.inputs[updated.input]);
    });
    // What an in-place member writes is spoken for, also where another output comes first.
    const updates = targets.flatMap((target) => (target ? [this.#at(target)] : []));
    for (const [i, output] of group.outputs.entries()) {
      const target = targets[i];
      const where = target
        ? this.#updatePlace(target, index, group.operands, inputs)
        : (this.#donated(group, output.value, output.axes, index, [...updates, ...outputs]) ??
          this.#dense(output.value));
      outputs.push(where);
      this.#settle(output.value, where);
    }
    const template = {
      space: group.space,
      reduced: group.reduced,
      inputs: group.inputs,
      outputs: group.outputs,
      scalars: group.scalars,
    };
    const lowered = lowerTemplate(
      template,
      group.operands.map((value, i) => operand(value.aval, definite(inputs[i]))),
      group.outputs.map((output, i) => operand(output.value.aval, definite(outputs[i]))),
    );
    this.#emit(
      lowered,
      [
        ...group.operands.map((value, i) => ref(value.aval, definite(inputs[i]))),
        ...group.outputs.map((output, i) => ref(output.value.aval, definite(outputs[i]))),
      ],
      group.nodes.map((node) => node.op?.name ?? '').join('+'),
      group.nodes,
    );
  }

  #routine(node: Node, index: number): void {
    const { op } = node;
    invariant(op?.lower.kind === 'routine', () => `${op?.name} is not a routine`);
    const { routine } = op.lower;
    const inputs = node.inputs.map((value, i) => {
      const where = this.#at(value);
      if (acceptsLayout(routine, i, value.aval, where, node.params)) return where;
      return this.#copy(value, where);
    });
    const outputs = node.outputs.map((value) => {
      const updated = op.traits.updates?.find((pair) => pair.out === value.index);
      if (!updated) return this.#dense(value);
      const target = definite(node.inputs[updated.input]);
      return this.#updatePlace(target, index, node.inputs, inputs);
    });
    node.outputs.forEach((value, i) => {
      this.#settle(value, definite(outputs[i]));
    });
    const lowered = lowerOp(
      op,
      node.inputs.map((value, i) => operand(value.aval, definite(inputs[i]))),
      node.outputs.map((value, i) => operand(value.aval, definite(outputs[i]))),
      node.params,
    );
    const operands = [
      ...node.inputs.map((value, i) => ref(value.aval, definite(inputs[i]))),
      ...node.outputs.map((value, i) => ref(value.aval, definite(outputs[i]))),
    ];
    this.#emit(lowered, operands, op.name, [node]);
  }

  #transfer(node: Node): void {
    const value = definite(node.inputs[0]);
    if (node.op?.traits.transfer === 'store') {
      const own = this.#at(value);
      const dense = isContiguous(value.aval.shape, own.layout.strides);
      const parcel = this.#parcels.size;
      this.#parcels.set(definite(node.outputs[0]), parcel);
      this.#move(node, parcel, value.aval, dense ? own : this.#copy(value, own), 'store', 'stored');
      return;
    }
    const output = definite(node.outputs[0]);
    const where = this.#dense(output);
    this.#settle(output, where);
    this.#move(node, definite(this.#parcels.get(value)), output.aval, where, 'fetch', 'fetched');
  }

  #move(
    node: Node,
    parcel: number,
    aval: Aval,
    where: Place,
    start: TransferStep['kind'],
    end: TransferStep['kind'],
  ): void {
    const bytes = avalBytes(aval);
    if (start === 'store' && this.#keepStored) this.#kept.add(where.buffer);
    for (const kind of [start, end]) {
      this.#steps.push({
        kind,
        parcel,
        bytes,
        operands: [ref(aval, where)],
        label: kind,
        nodes: [node],
      });
    }
  }

  /**
   * Where an in-place op writes: its target's own memory, or a copy if somebody still reads the old
   * value. Other operands that lie in that memory, views of the target, are read from a copy.
   */
  #updatePlace(target: Value, index: number, operands: readonly Value[], inputs: Place[]): Place {
    const where = this.#writablePlace(target, index);
    operands.forEach((value, i) => {
      const own = this.#at(value);
      if (value === target) inputs[i] = where;
      else if (own.buffer === where.buffer) inputs[i] = this.#copy(value, own);
    });
    return where;
  }

  #writablePlace(target: Value, index: number): Place {
    const where = this.#at(target);
    const { kind } = where.buffer;
    const readLater = (this.#lastRead.get(baseOf(target)) ?? -1) > index;
    const foreign = kind === 'input' || kind === 'constant';
    const kept = kind === 'arena' && this.#live.has(baseOf(target));
    if (kind === 'state') {
      invariant(!readLater, () => `state '${target.node.label}' is read after it was overwritten`);
      return where;
    }
    if (!readLater && !foreign && !kept) return where;
    return this.#copy(target, where);
  }

  /** Memory of an input that dies here and lies exactly as the output will. */
  #donated(
    group: KernelGroup,
    output: Value,
    axes: readonly number[],
    index: number,
    taken: readonly Place[],
  ): Place | undefined {
    const strides = contiguousStrides(output.aval.shape);
    for (const [k, value] of group.operands.entries()) {
      const where = this.#at(value);
      const { buffer } = where;
      if (buffer.kind !== 'arena' || taken.some((other) => other.buffer === buffer)) continue;
      if (this.#kept.has(buffer)) continue;
      if (buffer.bytes !== alignBytes(avalBytes(output.aval))) continue;
      if (bytesOf(value.aval.dtype) !== bytesOf(output.aval.dtype)) continue;
      if (!this.#diesAt(buffer, index)) continue;
      const reads = group.inputs.filter((input) => input.operand === k);
      const pointwise = reads.every(
        (input) =>
          !input.relayout &&
          input.axes.every(
            (axis, i) => spread(axis, where.layout.strides) === spread(definite(axes[i]), strides),
          ),
      );
      const others = group.operands.some(
        (other, j) => j !== k && this.#at(other).buffer === buffer,
      );
      if (!pointwise || others || where.layout.offset !== 0) continue;
      if (!sameShape(value.aval.shape, output.aval.shape)) continue;
      return { buffer, layout: { offset: 0, strides } };
    }
    return undefined;
  }

  #diesAt(buffer: PlacedBuffer, index: number): boolean {
    for (const value of this.#residents.get(buffer) ?? []) {
      if (this.#live.has(value) || (this.#lastRead.get(baseOf(value)) ?? -1) > index) return false;
    }
    return true;
  }

  /** The caller's copy of a result: its own dense buffer. */
  #result(value: Value): PlacedBuffer {
    const where = this.#at(value);
    const dense = isContiguous(value.aval.shape, where.layout.strides) && where.layout.offset === 0;
    const whole = where.buffer.bytes === alignBytes(avalBytes(value.aval));
    if (where.buffer.kind === 'arena' && dense && whole) {
      where.buffer.kind = 'result';
      return where.buffer;
    }
    return this.#copy(value, where, 'result').buffer;
  }

  #emit(
    lowered: Lowered,
    operands: readonly PlacedOperand[],
    label: string,
    nodes: readonly Node[],
  ): void {
    this.#steps.push({ kind: 'launch', lowered, operands, label, nodes });
  }
}

function operand(aval: Aval, where: Place): Operand {
  return { aval, layout: { offset: 0, strides: where.layout.strides } };
}

function ref(aval: Aval, where: Place): PlacedOperand {
  return { buffer: where.buffer, byteOffset: where.layout.offset * bytesOf(aval.dtype) };
}

function bytesOf(dtype: DType): number {
  return bytesPerElement(dtype);
}

function spread(axis: number, strides: readonly number[]): number {
  return axis < 0 ? 0 : (strides[axis] ?? 0);
}

function withBases(values: ReadonlySet<Value>): Set<Value> {
  return new Set([...values].flatMap((value) => [value, baseOf(value)]));
}

/** Last fused step that reads each base value, through views too. */
function lastReads(steps: readonly FusedStep[]): Map<Value, number> {
  const last = new Map<Value, number>();
  steps.forEach((step, index) => {
    const read =
      step.kind === 'kernel' ? step.group.operands : step.kind === 'source' ? [] : step.node.inputs;
    for (const value of read) last.set(baseOf(value), index);
  });
  return last;
}

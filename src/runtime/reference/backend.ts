/**
 * The reference backend: kernels through the interpreter, routines through their reference
 * functions, all in float64 and one thread. Slow and plain: what the others are tested against, and
 * where gradients are checked by differences.
 */

import { bytesPerElement, type DType } from '../../core/dtype.ts';
import { ArgumentError, DTypeError, invariant } from '../../core/errors.ts';
import { hostTensor, hostValues } from '../../core/host-tensor.ts';
import { contiguousStrides, isContiguous, numElements } from '../../core/shape.ts';
import { kernelKey } from '../../ir/kernel.ts';
import type { Operand } from '../../ir/op.ts';
import type { Allocator, Block } from '../allocator.ts';
import type {
  Backend,
  BlockRef,
  Executable,
  LaunchStep,
  Lowered,
  Program,
  ProgramStep,
} from '../backend.ts';
import { ProgramTransfers, isTransfer } from '../program-transfers.ts';
import { type BlockTransfer, type TransferPlace, wrongPlace } from '../transfer.ts';
import { ReferenceAllocator, ReferenceBlock } from './allocator.ts';
import { SlotTransfer } from './slot-transfer.ts';
import { type ReferenceOperand, runKernel } from './kernel-interpreter.ts';

interface ReferenceExecutable extends Executable {
  readonly lowered: Lowered;
}

export class ReferenceBackend implements Backend {
  readonly name = 'reference';
  readonly synchronous = true;
  readonly costs = new Map<string, number>();
  readonly transferPlaces = ['host'] as const;
  readonly info: Readonly<Record<string, string>> = { precision: 'float64' };
  readonly allocator: Allocator = new ReferenceAllocator();

  write(target: BlockRef, data: Uint8Array, dtype?: DType): void {
    const width = widthOf('write', dtype);
    const count = data.length / width.bytes;
    const values = hostValues({ dtype: width.dtype, shape: [count], data });
    this.writeValues(target, values, width.dtype);
  }

  read(source: BlockRef, bytes: number, dtype?: DType): Uint8Array {
    const width = widthOf('read', dtype);
    const values = this.readValues(source, bytes / width.bytes, width.dtype);
    return hostTensor(values, [values.length], width.dtype).data;
  }

  readAsync(source: BlockRef, bytes: number, dtype?: DType): Promise<Uint8Array> {
    return Promise.resolve(this.read(source, bytes, dtype));
  }

  /** The stored numbers themselves, which `read` would round to `dtype`. */
  readValues(source: BlockRef, count: number, dtype: DType): Float64Array {
    const { data, start } = slotsOf('read', source, count * bytesPerElement(dtype));
    const width = bytesPerElement(dtype);
    return Float64Array.from({ length: count }, (_, i) => data[start + i * width]!);
  }

  /** Stores numbers without rounding them to `dtype`. */
  writeValues(target: BlockRef, values: ArrayLike<number>, dtype: DType): void {
    const width = bytesPerElement(dtype);
    const { data, start } = slotsOf('write', target, values.length * width);
    for (let i = 0; i < values.length; i++) data[start + i * width] = values[i]!;
  }

  fillZero(target: BlockRef, bytes: number): void {
    const { data, start } = slotsOf('fillZero', target, bytes);
    data.fill(0, start, start + bytes);
  }

  prepare(lowered: Lowered): ReferenceExecutable {
    return lowered.kind === 'kernel'
      ? { key: kernelKey(lowered.spec), operands: lowered.spec.operands, lowered }
      : {
          key: lowered.name,
          operands: lowered.inputs.length + lowered.outputs.length,
          lowered,
        };
  }

  launch(executable: Executable, scalars: readonly number[], operands: readonly BlockRef[]): void {
    const { lowered } = executable as ReferenceExecutable;
    if (operands.length !== executable.operands) {
      throw new ArgumentError(
        `launch: wrong number of operands (got ${operands.length} for ${executable.operands}). ` +
          'Give one block per operand.',
      );
    }
    const slots = operands.map((operand) => slotsOf('launch', operand, 0));
    if (lowered.kind === 'kernel') runKernel(lowered.spec, slots, scalars);
    else runRoutine(lowered, slots);
  }

  createProgram(steps: readonly ProgramStep[], place: TransferPlace = { to: 'host' }): Program {
    const transfers = new ProgramTransfers(() => this.openTransfer(place));
    const launch = (step: LaunchStep, blocks: readonly Block[]): void => {
      const operands = step.operands.map(({ slot, byteOffset }) => {
        const block = blocks[slot];
        if (block) return { block, byteOffset };
        throw new ArgumentError(
          `Program.run: too few blocks (got ${blocks.length}, no slot ${slot}). Give one block per slot.`,
        );
      });
      const { copyBytes } = step;
      if (copyBytes === undefined) this.launch(step.executable, step.scalars, operands);
      else copySlots(operands[0]!, operands[1]!, copyBytes);
    };
    const profile = (blocks: readonly Block[]): readonly number[] => {
      try {
        return steps.map((step) => {
          const start = performance.now();
          if (isTransfer(step)) transfers.perform(step, blocks);
          else launch(step, blocks);
          return performance.now() - start;
        });
      } finally {
        transfers.end();
      }
    };
    return { run: (blocks) => void profile(blocks), profile, dispose: () => {} };
  }

  openTransfer(place: TransferPlace): BlockTransfer {
    if (place.to !== 'host') throw wrongPlace(this, place);
    return new SlotTransfer();
  }

  dispose(): void {}
}

function widthOf(who: string, dtype: DType | undefined): { dtype: DType; bytes: number } {
  if (dtype) return { dtype, bytes: bytesPerElement(dtype) };
  throw new DTypeError(
    `${who}: the reference backend stores numbers and must know their type (got undefined). Give a dtype.`,
  );
}

/** The slots of a block and where the reference begins; checks that `bytes` lie inside. */
function slotsOf(who: string, { block, byteOffset }: BlockRef, bytes: number): ReferenceOperand {
  invariant(
    block instanceof ReferenceBlock && block.live,
    () => `${who}: block ${block.id} was freed or is of another backend`,
  );
  if (byteOffset < 0 || bytes < 0 || byteOffset + bytes > block.bytes) {
    throw new ArgumentError(
      `${who}: the range is outside its block (got ${bytes} bytes at ${byteOffset} of ${block.bytes}).`,
      { byteOffset, bytes, blockBytes: block.bytes },
    );
  }
  return { data: block.slots, start: byteOffset };
}

function copySlots(from: BlockRef, to: BlockRef, bytes: number): void {
  const source = slotsOf('copy', from, bytes);
  const target = slotsOf('copy', to, bytes);
  target.data.set(source.data.subarray(source.start, source.start + bytes), target.start);
}

function runRoutine(
  lowered: Lowered & { readonly kind: 'routine' },
  slots: readonly ReferenceOperand[],
): void {
  const operands = [...lowered.inputs, ...lowered.outputs];
  const dense = operands.map((operand, i) => gather(operand, slots[i]!));
  const count = lowered.inputs.length;
  lowered.routine.reference(
    dense.slice(0, count),
    dense.slice(count),
    {
      inputs: lowered.inputs.map(({ aval }) => aval),
      outputs: lowered.outputs.map(({ aval }) => aval),
    },
    lowered.params,
  );
  // An output may share its block with an input, so all are computed before any is stored.
  lowered.outputs.forEach((operand, k) => {
    scatter(operand, slots[count + k]!, dense[count + k]!);
  });
}

/** The elements of an operand, row-major. Outputs are gathered too: a routine may add to them. */
function gather(operand: Operand, { data, start }: ReferenceOperand): Float64Array {
  const out = new Float64Array(numElements(operand.aval.shape));
  forEachElement(operand, start, (slot, i) => {
    out[i] = data[slot]!;
  });
  return out;
}

function scatter(operand: Operand, { data, start }: ReferenceOperand, values: Float64Array): void {
  forEachElement(operand, start, (slot, i) => {
    data[slot] = values[i]!;
  });
}

/** Calls `visit` with the slot of each element, in row-major order. */
function forEachElement(
  { aval, layout }: Operand,
  start: number,
  visit: (slot: number, index: number) => void,
): void {
  const { shape } = aval;
  const width = bytesPerElement(aval.dtype);
  const count = numElements(shape);
  const base = start + layout.offset * width;
  if (isContiguous(shape, layout.strides)) {
    for (let i = 0; i < count; i++) visit(base + i * width, i);
    return;
  }
  const rows = contiguousStrides(shape);
  for (let i = 0; i < count; i++) {
    let element = 0;
    for (let axis = 0; axis < shape.length; axis++) {
      const coordinate = Math.floor(i / rows[axis]!) % shape[axis]!;
      element += coordinate * (layout.strides[axis] ?? 0);
    }
    visit(base + element * width, i);
  }
}

/** A placed program: buffers, and steps whose operands lie in them. */

import type { HostTensor } from '../core/host-tensor.ts';
import type { Node, Value } from '../ir/graph.ts';
import type { Lowered, TransferStep } from '../runtime/backend.ts';

export type BufferKind = 'arena' | 'state' | 'input' | 'constant' | 'result';

export interface PlacedBuffer {
  readonly id: number;
  kind: BufferKind;
  readonly bytes: number;
  /** The value it was made for, for reports. */
  readonly value: Value;
  /** First and last placed step that touches it. */
  first: number;
  last: number;
}

export interface PlacedOperand {
  readonly buffer: PlacedBuffer;
  /** Bytes from the buffer's start to the operand's first element. */
  readonly byteOffset: number;
}

interface PlacedCommon {
  readonly operands: readonly PlacedOperand[];
  readonly label: string;
  /** The graph nodes it carries out; empty for inserted copies. */
  readonly nodes: readonly Node[];
}

export interface PlacedLaunch extends PlacedCommon {
  readonly kind: 'launch';
  readonly lowered: Lowered;
}

/** A step of a transfer; its one operand is the buffer that is copied. See TransferStep of the runtime. */
export interface PlacedTransfer extends PlacedCommon {
  readonly kind: TransferStep['kind'];
  readonly parcel: number;
  readonly bytes: number;
}

export type PlacedStep = PlacedLaunch | PlacedTransfer;

export interface Placement {
  /** Each transfer is waited for at once; see spreadTransfers. */
  readonly steps: readonly PlacedStep[];
  readonly buffers: readonly PlacedBuffer[];
  /** In the order of graph.results: dense, in a buffer of kind 'result'. */
  readonly results: readonly PlacedBuffer[];
  readonly buffersOf: ReadonlyMap<Value, PlacedBuffer>;
  readonly constants: readonly { readonly buffer: PlacedBuffer; readonly tensor: HostTensor }[];
}

/** First and last step that touches each buffer. */
export function setLifetimes(buffers: readonly PlacedBuffer[], steps: readonly PlacedStep[]): void {
  for (const buffer of buffers) {
    buffer.first = Number.POSITIVE_INFINITY;
    buffer.last = -1;
  }
  steps.forEach((step, at) => {
    for (const { buffer } of step.operands) {
      buffer.first = Math.min(buffer.first, at);
      buffer.last = Math.max(buffer.last, at);
    }
  });
}

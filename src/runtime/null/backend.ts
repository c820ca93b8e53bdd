/**
 * The null backend: allocations are accounted for exactly as on the CPU, but there is no memory, and
 * kernels are not run. For measuring what a model would need.
 */

import { kernelKey } from '../../ir/kernel.ts';
import { alignment, type Allocator } from '../allocator.ts';
import type { Backend, BlockRef, Executable, Lowered, Program, ProgramStep } from '../backend.ts';
import { Heap } from '../heap.ts';
import { HeapAllocator } from '../heap-allocator.ts';
import { HostTransfer } from '../host-transfer.ts';
import { type BlockTransfer, type TransferPlace, wrongPlace } from '../transfer.ts';

export class NullBackend implements Backend {
  readonly name = 'null';
  readonly synchronous = true;
  readonly costs = new Map<string, number>();
  readonly transferPlaces = ['host'] as const;
  readonly info: Readonly<Record<string, string>> = { memory: 'none' };
  readonly allocator: Allocator = new HeapAllocator({
    heap: new Heap({ start: alignment, limit: Number.MAX_SAFE_INTEGER, grow: (end) => end }),
    limitName: 'the null backend',
  });

  write(): void {}

  read(_source: BlockRef, bytes: number): Uint8Array {
    return new Uint8Array(bytes);
  }

  readAsync(source: BlockRef, bytes: number): Promise<Uint8Array> {
    return Promise.resolve(this.read(source, bytes));
  }

  fillZero(): void {}

  prepare(lowered: Lowered): Executable {
    return lowered.kind === 'kernel'
      ? { key: kernelKey(lowered.spec), operands: lowered.spec.operands }
      : { key: lowered.name, operands: lowered.inputs.length + lowered.outputs.length };
  }

  launch(): void {}

  createProgram(steps: readonly ProgramStep[]): Program {
    return { run: () => {}, profile: () => steps.map(() => 0), dispose: () => {} };
  }

  openTransfer(place: TransferPlace): BlockTransfer {
    if (place.to !== 'host') throw wrongPlace(this, place);
    return new HostTransfer(this);
  }

  dispose(): void {}
}

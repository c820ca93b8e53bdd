/** Kernels that the backend itself needs: copying bytes and filling with zeros, on all threads. */

import { kernelFunction, type KernelArguments } from '../../codegen/wasm/kernel-function.ts';
import { ModuleBuilder } from '../../codegen/wasm/module.ts';
import type { FunctionBuilder } from '../../codegen/wasm/function.ts';
import type { Ptr } from '../../codegen/wasm/pointer.ts';

/** Bytes that are not divided between threads. */
export const lineBytes = 64;

/** Slots: from, to, bytes (as an address), lines = ceil(bytes / lineBytes). Ranges do not overlap. */
export function copyModule(memory64: boolean): Uint8Array<ArrayBuffer> {
  return bytesModule(memory64, (f, k) => {
    const [from, to] = [k.ptr(0), k.ptr(1)];
    forShare(f, k, 2, (begin, bytes) => f.copy(to.add(begin), from.add(begin), bytes));
  });
}

/** Slots: to, bytes (as an address), lines = ceil(bytes / lineBytes). */
export function zeroModule(memory64: boolean): Uint8Array<ArrayBuffer> {
  return bytesModule(memory64, (f, k) => {
    const to = k.ptr(0);
    forShare(f, k, 1, (begin, bytes) => f.fill(to.add(begin), 0, bytes));
  });
}

function bytesModule(
  memory64: boolean,
  body: (f: FunctionBuilder, k: KernelArguments) => void,
): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder({ address: memory64 ? 'i64' : 'i32' });
  kernelFunction(module, 'main', body);
  return module.bytes();
}

/** Calls `body` with this thread's first byte and number of bytes; the byte count lies in `slot`. */
function forShare(
  f: FunctionBuilder,
  k: KernelArguments,
  slot: number,
  body: (begin: Ptr, bytes: Ptr) => void,
): void {
  const total = k.ptr(slot);
  const [first, last] = k.share(k.i32(slot + 1));
  const zero = total.sub(total);
  const begin = f.let(zero.at(first, lineBytes));
  const end = f.let(zero.at(last, lineBytes));
  f.if(end.gt(total), () => end.set(total));
  f.if(begin.lt(end), () => body(begin, end.sub(begin)));
}

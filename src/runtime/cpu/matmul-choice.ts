/** The choice between the host's BLAS and the generated multiply, made once on the main thread. */

import { compileGemm } from '../../codegen/wasm/gemm/choose.ts';
import { gemmScratchBytes } from '../../codegen/wasm/gemm/blocking.ts';
import { readEnv } from '../../core/env.ts';
import { ArgumentError, invariant, UnsupportedError } from '../../core/errors.ts';
import { alignBytes } from '../allocator.ts';
import type { Heap } from '../heap.ts';
import { type BlasLibrary, findBlas } from './blas.ts';
import { word } from './control.ts';
import type { MatmulSetup } from './matmul.ts';
import { type SharedMemory, storeAddress } from './memory.ts';

export type MatmulKind = 'auto' | 'blas' | 'wasm';

export interface MatmulChoice {
  readonly kind: 'blas' | 'wasm';
  /** For people. */
  readonly description: string;
}

export interface MatmulOptions {
  readonly threads: number;
  readonly relaxedSimd: boolean;
}

/** RETUNE_MATMUL, checked. */
export function matmulFromEnv(): MatmulKind {
  const value = readEnv('RETUNE_MATMUL') ?? 'auto';
  if (value === 'auto' || value === 'blas' || value === 'wasm') return value;
  throw new ArgumentError(
    `RETUNE_MATMUL: it names no matrix multiply (got ${value}). Use auto, blas or wasm.`,
  );
}

/** Finds what `kind` asks for and tells all threads. Throws UnsupportedError when BLAS must be and is not. */
export function setUpMatmul(
  kind: MatmulKind,
  heap: Heap,
  memory: SharedMemory,
  options: MatmulOptions,
): MatmulChoice {
  const blas = kind === 'wasm' ? undefined : searchBlas(kind, heap, memory);
  if (blas) {
    publish({ kind: 'blas', path: blas.path }, heap, memory);
    return { kind: 'blas', description: `${blas.name} (${blas.path})` };
  }
  const { bytes, blocking } = compileGemm({
    address: memory.memory64 ? 'i64' : 'i32',
    relaxed: options.relaxedSimd,
  });
  const scratchBytes = alignBytes(gemmScratchBytes(blocking));
  publish(
    {
      kind: 'wasm',
      address: place(bytes, heap, memory),
      bytes: bytes.length,
      scratch: take(scratchBytes * options.threads, heap),
      scratchBytes,
    },
    heap,
    memory,
  );
  return { kind: 'wasm', description: `WebAssembly, tile ${blocking.mr} x ${blocking.nr}` };
}

function searchBlas(
  kind: 'auto' | 'blas',
  heap: Heap,
  memory: SharedMemory,
): BlasLibrary | undefined {
  const chunk = heap.alloc(alignBytes(256));
  invariant(chunk, () => 'setUpMatmul: no memory for a trial product');
  try {
    const scratch = new Float32Array(memory.buffer, chunk.address, 64);
    const found = findBlas(scratch, readEnv('RETUNE_BLAS'));
    if (found || kind === 'auto') return found;
    throw new UnsupportedError(
      'cpu backend: matmul "blas" was asked for, but no BLAS library was found (with the package koffi). ' +
        'Install OpenBLAS, set RETUNE_BLAS to its path, or choose "auto" or "wasm".',
    );
  } finally {
    heap.free(chunk);
  }
}

function publish(setup: MatmulSetup, heap: Heap, memory: SharedMemory): void {
  const text = new TextEncoder().encode(JSON.stringify(setup));
  storeAddress(memory.control, word.matmulAddress, place(text, heap, memory));
  memory.control[word.matmulBytes] = text.length;
}

function place(bytes: Uint8Array, heap: Heap, memory: SharedMemory): number {
  const address = take(alignBytes(bytes.length), heap);
  memory.view(address, bytes.length).set(bytes);
  return address;
}

/** Stays taken as long as the backend lives. */
function take(bytes: number, heap: Heap): number {
  const chunk = heap.alloc(bytes);
  invariant(chunk, () => `setUpMatmul: no memory for ${bytes} bytes`);
  return chunk.address;
}

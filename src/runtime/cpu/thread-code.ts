/**
 * The codes as one thread holds them: each thread turns the bytes that the main thread put into
 * shared memory into a function, when it first needs it. Kinds of code: a WebAssembly module with an
 * export `main`, a matrix multiply, a program.
 */

import { InternalError } from '../../core/errors.ts';
import { codeEntry, codeEntryWords, codeKind, codeTableStart, word } from './control.ts';
import { decodeGemm, gemmCode } from './gemm-call.ts';
import { type ThreadMatmul, threadMatmul } from './matmul.ts';
import { loadAddress, type SharedMemory } from './memory.ts';
import { decodeProgram, programCode } from './program-code.ts';
import type { Thread, ThreadCode } from './thread.ts';

interface Loaded {
  readonly run: ThreadCode;
  readonly generation: number;
}

/** One per thread and backend. */
export class CodeThread implements Thread {
  readonly memory: SharedMemory;
  readonly thread: number;
  readonly checkWorkers: () => void;
  /** Replaced while a profile is taken. */
  stepDone: (step: number) => void = () => {};
  readonly #setUpMatmul: () => void;
  readonly #loaded: (Loaded | undefined)[] = [];
  #removals = 0;
  #matmul: ThreadMatmul | undefined;

  /** `setUpMatmul` chooses the matrix multiply; by the time a worker needs it, that is done. */
  constructor(
    memory: SharedMemory,
    thread: number,
    checkWorkers: () => void,
    setUpMatmul: () => void,
  ) {
    this.memory = memory;
    this.thread = thread;
    this.checkWorkers = checkWorkers;
    this.#setUpMatmul = setUpMatmul;
  }

  /** The function of a code. */
  code(id: number): ThreadCode {
    const known = this.#loaded[id];
    return known === undefined ? this.#load(id) : known.run;
  }

  /** Drops functions whose code was removed. Call before a command is looked at. */
  catchUp(): void {
    this.memory.refresh();
    const control = this.memory.control;
    const removals = Atomics.load(control, word.removals);
    if (removals === this.#removals) return;
    this.#removals = removals;
    this.#loaded.forEach((loaded, id) => {
      if (loaded && loaded.generation !== control[entryIndex(id) + codeEntry.generation]) {
        this.#loaded[id] = undefined;
      }
    });
  }

  /** This thread's matrix multiply. */
  matmul(): ThreadMatmul {
    if (this.#matmul === undefined) {
      this.#setUpMatmul();
      this.#matmul = threadMatmul(this.memory, this.thread);
    }
    return this.#matmul;
  }

  /** Counted so that the main thread knows when nobody needs the bytes any more. */
  #load(id: number): ThreadCode {
    const control = this.memory.control;
    const entry = entryIndex(id);
    const address = loadAddress(control, entry + codeEntry.address);
    const bytes = this.memory.view(address, control[entry + codeEntry.bytes]!).slice();
    const generation = control[entry + codeEntry.generation]!;
    const run = this.#decode(control[entry + codeEntry.kind]!, bytes);
    this.#loaded[id] = { run, generation };
    if (this.thread > 0) Atomics.add(control, entry + codeEntry.loaded, 1);
    return run;
  }

  #decode(kind: number, bytes: Uint8Array<ArrayBuffer>): ThreadCode {
    switch (kind) {
      case codeKind.module:
        return this.#instantiate(bytes);
      case codeKind.gemm:
        return gemmCode(decodeGemm(bytes), this.memory, this.matmul().gemm);
      case codeKind.program:
        return programCode(decodeProgram(bytes), this);
      default:
        throw new InternalError(`thread code: unknown kind ${kind}`);
    }
  }

  #instantiate(bytes: Uint8Array<ArrayBuffer>): ThreadCode {
    const module = new WebAssembly.Module(bytes);
    const env: Record<string, WebAssembly.ImportValue> = { memory: this.memory.memory };
    for (const { name } of WebAssembly.Module.imports(module)) {
      if (name === 'gemm') env.gemm = this.matmul().import;
    }
    const { main } = new WebAssembly.Instance(module, { env }).exports;
    if (typeof main !== 'function') {
      throw new InternalError('thread code: a kernel module has no export "main"');
    }
    if (!this.memory.memory64) return main as ThreadCode;
    const wide = main as (args: bigint, thread: number, threads: number) => void;
    return (args, thread, threads) => wide(BigInt(args), thread, threads);
  }
}

/** Index of a code's entry in the control words. */
export function entryIndex(id: number): number {
  return codeTableStart / 4 + id * codeEntryWords;
}

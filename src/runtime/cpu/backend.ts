/**
 * The CPU backend: one shared WebAssembly memory that a heap divides, generated WebAssembly kernels,
 * worker threads, and the host's BLAS or a generated matrix multiply. Runs are synchronous.
 */

import { wasmFeatures } from '../../codegen/wasm/features.ts';
import { generateKernel } from '../../codegen/wasm/kernel/generate.ts';
import { readEnv } from '../../core/env.ts';
import { ArgumentError, invariant, UnsupportedError } from '../../core/errors.ts';
import { kernelKey } from '../../ir/kernel.ts';
import type { GemmCall, WasmRoutine } from '../../ir/op.ts';
import { alignBytes, type Allocator } from '../allocator.ts';
import type {
  Backend,
  BlockRef,
  Executable,
  LaunchStep,
  Lowered,
  Program,
  ProgramStep,
} from '../backend.ts';
import { type Chunk, Heap } from '../heap.ts';
import { HeapAllocator } from '../heap-allocator.ts';
import { ProgramTransfers } from '../program-transfers.ts';
import { type BlockTransfer, type TransferPlace, wrongPlace } from '../transfer.ts';
import { copyModule, lineBytes, zeroModule } from './builtin-codes.ts';
import { type CodeKind, CodeStore } from './code-store.ts';
import { heapStart, launchArgsStart, launchSlots, maxThreads } from './control.ts';
import {
  type Code,
  type CpuExecutable,
  kernelThreads,
  wakingCost,
  RecentCache,
  slotCount,
  storeValues,
} from './executable.ts';
import { trapError } from './failure.ts';
import { CostFile } from './files/cost-file.ts';
import { FileTransfers } from './files/file-transfer.ts';
import type { FileThreadStart } from './files/job-queue.ts';
import { encodeGemm, gemmThreads, gemmWork, wakingWork } from './gemm-call.ts';
import { type MatmulChoice, type MatmulKind, matmulFromEnv, setUpMatmul } from './matmul-choice.ts';
import { SharedMemory, storeAddress } from './memory.ts';
import { pageRelease } from './page-release.ts';
import { availableThreads, hasWorkers, processorModel } from './platform.ts';
import { CpuProgram, layOutProgram, piecesOf, programArgsBytes } from './program.ts';
import { encodeProgram } from './program-code.ts';
import { ThreadPool } from './thread-pool.ts';

export interface CpuBackendOptions {
  /** Threads, the calling one included. Default: RETUNE_THREADS, or the cores there are. */
  readonly threads?: number;
  /** Default: RETUNE_MATMUL, or 'auto': BLAS when one is found. */
  readonly matmul?: MatmulKind;
  /** 64-bit addresses, for more than 4 GiB. Default: whether maximumBytes asks for more. */
  readonly memory64?: boolean;
  /** Most bytes of memory. Default: 4 GiB, or 16 GiB with memory64. */
  readonly maximumBytes?: number;
  /** Kernels that are kept when nothing refers to them. Default 4096. */
  readonly cachedKernels?: number;
  /** A job of the file thread that shall fail, for tests of what happens then. */
  readonly fileFault?: FileThreadStart['fault'];
}

const gibibyte = 2 ** 30;

/** An executable without scratch memory and fixed values. */
const plain = { scratchBytes: 0, values: [] } as const;

/** Bytes from which filling and copying is worth a second thread. */
const parallelBytes = 2 ** 19;

/** Bytes up to which `fillZero` does not run a kernel. */
const smallFill = 256;

export class CpuBackend implements Backend {
  readonly name = 'cpu';
  readonly synchronous = true;
  readonly costs = new CostFile(() => JSON.stringify([processorModel(), this.info]));
  readonly transferPlaces = ['file'] as const;
  readonly allocator: Allocator;
  readonly #memory: SharedMemory;
  readonly #heap: Heap;
  readonly #store: CodeStore;
  readonly #pool: ThreadPool;
  readonly #codes: RecentCache<Code>;
  readonly #executables: RecentCache<CpuExecutable>;
  readonly #matmulKind: MatmulKind;
  readonly #features: { readonly relaxedSimd: boolean; readonly memory64: boolean };
  readonly #transfers: FileTransfers;
  readonly #words: Int32Array;
  readonly #floats: Float32Array;
  #matmul: MatmulChoice | undefined;
  #scratch: Chunk | undefined;

  constructor(options: CpuBackendOptions = {}) {
    const memory64 = options.memory64 ?? (options.maximumBytes ?? 0) > 4 * gibibyte;
    const features = wasmFeatures();
    if (memory64 && !features.memory64) {
      throw new UnsupportedError(
        'createCpuBackend: this engine has no 64-bit WebAssembly memory. Leave memory64 off and ask for at most 4 GiB.',
      );
    }
    const most = memory64 ? 16 * gibibyte : 4 * gibibyte;
    const memory = SharedMemory.create(Math.min(options.maximumBytes ?? most, most), memory64);
    const threads = threadCount(options.threads);
    this.#features = { relaxedSimd: features.relaxedSimd, memory64 };
    this.#matmulKind = options.matmul ?? matmulFromEnv();
    this.#memory = memory;
    this.#transfers = new FileTransfers(memory, options.fileFault);
    this.#words = memory.words(launchArgsStart, launchSlots * 2);
    this.#floats = new Float32Array(memory.buffer, launchArgsStart, launchSlots * 2);
    this.#heap = new Heap({
      start: heapStart,
      limit: memory.limit,
      grow: (end) => memory.grow(end),
    });
    this.allocator = new HeapAllocator({
      heap: this.#heap,
      limitName: memory64 ? 'the WebAssembly memory' : 'the 32-bit WebAssembly memory',
      release: pageRelease(memory),
    });
    this.#pool = new ThreadPool(memory, threads, () => void this.#matrixMultiply());
    this.#store = new CodeStore(memory, this.#heap, threads - 1);
    const capacity = options.cachedKernels ?? 4096;
    this.#codes = new RecentCache(capacity, (code) => this.#evict(code));
    this.#executables = new RecentCache(2 * capacity, () => true);
  }

  get info(): Readonly<Record<string, string>> {
    return {
      threads: String(this.#pool.threads),
      matmul: this.#matrixMultiply().description,
      simd: this.#features.relaxedSimd ? '128 bits, relaxed (fused multiply-add)' : '128 bits',
      memory: `${this.#features.memory64 ? '64' : '32'}-bit addresses, at most ${
        Math.round((this.#memory.limit / gibibyte) * 10) / 10
      } GiB`,
    };
  }

  /** Worker threads that have started so far; until all have, work runs on the calling thread. */
  get readyWorkers(): number {
    return this.#pool.ready;
  }

  write(target: BlockRef, data: Uint8Array): void {
    checkRange('write', target, data.length);
    this.#memory.bytes.set(data, target.block.address + target.byteOffset);
  }

  read(source: BlockRef, bytes: number): Uint8Array {
    checkRange('read', source, bytes);
    return this.#memory.view(source.block.address + source.byteOffset, bytes).slice();
  }

  readAsync(source: BlockRef, bytes: number): Promise<Uint8Array> {
    return Promise.resolve(this.read(source, bytes));
  }

  fillZero(target: BlockRef, bytes: number): void {
    checkRange('fillZero', target, bytes);
    const address = target.block.address + target.byteOffset;
    if (bytes <= smallFill) {
      this.#memory.bytes.fill(0, address, address + bytes);
      return;
    }
    const code = this.#builtin('fillZero', () => zeroModule(this.#features.memory64));
    storeAddress(this.#words, 0, address);
    storeAddress(this.#words, 2, bytes);
    this.#words[4] = Math.ceil(bytes / lineBytes);
    const threads = byteThreads(bytes, this.#pool.threads);
    this.#pool.run(code.id, launchArgsStart, { threads, wakes: false }, () => 'fillZero');
  }

  prepare(lowered: Lowered): CpuExecutable {
    if (lowered.kind === 'routine') return this.#prepareRoutine(lowered);
    const { spec } = lowered;
    const key = kernelKey(spec);
    return this.#executable(key, () => {
      const kernel = generateKernel(spec, this.#features);
      let bytes: Uint8Array | undefined = kernel.bytes;
      const code = this.#code(key, 'module', () => {
        const first = bytes ?? generateKernel(spec, this.#features).bytes;
        bytes = undefined;
        return first;
      });
      const threads = kernelThreads(kernel, this.#pool.threads);
      const wakes = kernel.cost >= wakingCost;
      return { operands: spec.operands, code, threads, wakes, scalars: spec.scalars, ...plain };
    });
  }

  launch(prepared: Executable, scalars: readonly number[], operands: readonly BlockRef[]): void {
    const executable = prepared as CpuExecutable;
    const { code } = executable;
    if (code.id < 0) this.#register(code);
    const words = this.#words;
    const count = executable.operands;
    if (operands.length !== count || slotCount(executable) > launchSlots) {
      throw new ArgumentError(
        `launch: wrong number of operands (got ${operands.length} for ${count}, at most ${launchSlots} slots). ` +
          'Give one block per operand.',
      );
    }
    for (let i = 0; i < count; i++) {
      const { block, byteOffset } = operands[i]!;
      storeAddress(words, 2 * i, block.address + byteOffset);
    }
    storeValues(executable, scalars, words, this.#floats, 0);
    if (executable.scratchBytes > 0) {
      storeAddress(words, 2 * count, this.#scratchFor(executable.scratchBytes));
    }
    this.#pool.run(
      code.id,
      launchArgsStart,
      executable,
      (failure) =>
        trapError(executable, failure) ?? `launch: kernel ${executable.key.slice(0, 200)} failed`,
    );
  }

  createProgram(steps: readonly ProgramStep[], place: TransferPlace = { to: 'file' }): Program {
    const { launches, pieces } = piecesOf(steps);
    const executables = launches.map((step) => this.#stepExecutable(step));
    for (const { scratchBytes } of executables) {
      if (scratchBytes > 0) this.#scratchFor(scratchBytes);
    }
    const size = programArgsBytes(executables);
    const args = this.#heap.alloc(size);
    invariant(args, () => `createProgram: no memory for ${size} bytes of arguments`);
    // While a code is pinned it keeps its number, which goes into the steps.
    for (const { code } of executables) {
      if (code.id < 0) this.#register(code);
      code.pins++;
    }
    const layout = layOutProgram(launches, executables, args, this.#memory);
    const segments = pieces.flatMap((piece) => (piece.kind === 'segment' ? piece : []));
    const starts = segments.map(({ from }) => from);
    const id = this.#store.add('program', encodeProgram({ steps: layout.codeSteps, starts }));
    this.#pool.load(id);
    const crews = segments.map(({ from, to }) => ({
      threads: Math.max(...layout.codeSteps.slice(from, to).map((step) => step.threads)),
      wakes: true,
    }));
    return new CpuProgram({
      ...layout,
      launches,
      pieces,
      transfers: new ProgramTransfers(() => this.openTransfer(place)),
      memory: this.#memory,
      args,
      scratch: () => this.#scratch?.address ?? 0,
      execute: (segment, describe, stepDone) =>
        this.#pool.run(id, segment, crews[segment]!, describe, stepDone),
      release: () => {
        this.#store.remove(id);
        this.#pool.catchUp();
        this.#heap.free(args);
        for (const { code } of executables) code.pins--;
      },
    });
  }

  openTransfer(place: TransferPlace): BlockTransfer {
    if (place.to !== 'file') throw wrongPlace(this, place);
    return this.#transfers.open(place.dir);
  }

  dispose(): void {
    this.#transfers.close();
    this.#pool.dispose();
  }

  #prepareRoutine(lowered: Lowered & { readonly kind: 'routine' }): CpuExecutable {
    const { routine, inputs, outputs, params, name } = lowered;
    if (typeof routine.wasm !== 'function') {
      throw new UnsupportedError(
        `${name}: it does not run on the cpu backend: ${routine.wasm.none}.`,
      );
    }
    const made = routine.wasm(inputs, outputs, params, {
      ...this.#features,
      threads: this.#pool.threads,
    });
    const operands = inputs.length + outputs.length;
    return 'gemm' in made
      ? this.#prepareGemm(made.gemm, operands)
      : this.#prepareWasm(made, operands);
  }

  #prepareWasm(routine: WasmRoutine, operands: number): CpuExecutable {
    const { scratchBytes = 0, values = [], parallelUnits = Number.POSITIVE_INFINITY } = routine;
    const threads = Math.max(1, Math.floor(Math.min(this.#pool.threads, parallelUnits)));
    const texts = values.map(({ type, value }) => `${type} ${value}`);
    return this.#executable(
      `${routine.key} values(${texts.join(', ')}) threads ${threads} operands ${operands}`,
      () => ({
        operands,
        code: this.#code(routine.key, 'module', routine.build),
        threads,
        wakes: true,
        scalars: [],
        scratchBytes: alignBytes(scratchBytes),
        values,
        trap: routine.trap,
      }),
    );
  }

  #prepareGemm(call: GemmCall, operands: number): CpuExecutable {
    const shares = gemmThreads(call, this.#pool.threads);
    const bytes = encodeGemm({ call, shares });
    const key = `gemm ${new TextDecoder().decode(bytes)}`;
    return this.#executable(key, () => ({
      operands,
      code: this.#code(key, 'gemm', () => bytes),
      threads: shares,
      wakes: gemmWork(call) >= wakingWork,
      scalars: [],
      ...plain,
    }));
  }

  #executable(key: string, make: () => Omit<CpuExecutable, 'key'>): CpuExecutable {
    const known = this.#executables.get(key);
    if (known) return known;
    const executable = { key, ...make() };
    this.#executables.add(key, executable);
    return executable;
  }

  #stepExecutable(step: LaunchStep): CpuExecutable {
    const { copyBytes } = step;
    if (copyBytes === undefined) return step.executable as CpuExecutable;
    return {
      key: `copy ${copyBytes}`,
      operands: 2,
      code: this.#builtin('copy', () => copyModule(this.#features.memory64)),
      threads: byteThreads(copyBytes, this.#pool.threads),
      wakes: false,
      scalars: [],
      scratchBytes: 0,
      values: [
        { type: 'i32', value: copyBytes },
        { type: 'i32', value: Math.ceil(copyBytes / lineBytes) },
      ],
    };
  }

  /** Address of scratch memory for all threads: `bytes` for thread 0, then for thread 1, ... */
  #scratchFor(bytes: number): number {
    const needed = bytes * this.#pool.threads;
    if (this.#scratch === undefined || this.#scratch.bytes < needed) {
      if (this.#scratch) this.#heap.free(this.#scratch);
      this.#scratch = this.#heap.alloc(needed);
      invariant(this.#scratch, () => `cpu backend: no memory for ${needed} bytes of scratch`);
    }
    return this.#scratch.address;
  }

  #builtin(name: string, build: () => Uint8Array): Code {
    return this.#code(`builtin ${name}`, 'module', build);
  }

  /** The code of this key, in the code table. */
  #code(key: string, kind: CodeKind, bytes: () => Uint8Array): Code {
    let code = this.#codes.get(key);
    if (code === undefined) {
      code = { key, kind, bytes, id: -1, pins: 0 };
      this.#register(code);
    }
    return code;
  }

  #register(code: Code): void {
    code.id = this.#store.add(code.kind, code.bytes());
    this.#pool.load(code.id);
    this.#codes.add(code.key, code);
  }

  #evict(code: Code): boolean {
    if (code.pins > 0) return false;
    this.#store.remove(code.id);
    this.#pool.catchUp();
    code.id = -1;
    return true;
  }

  #matrixMultiply(): MatmulChoice {
    this.#matmul ??= setUpMatmul(this.#matmulKind, this.#heap, this.#memory, {
      threads: this.#pool.threads,
      relaxedSimd: this.#features.relaxedSimd,
    });
    return this.#matmul;
  }
}

function threadCount(asked: number | undefined): number {
  const text = readEnv('RETUNE_THREADS');
  const threads = asked ?? (text === undefined ? availableThreads() : Number(text));
  if (!Number.isInteger(threads) || threads < 1 || threads > maxThreads) {
    throw new ArgumentError(
      `createCpuBackend: the number of threads is out of range (got ${asked ?? text}). ` +
        `Use an integer from 1 to ${maxThreads} in threads or RETUNE_THREADS.`,
    );
  }
  return hasWorkers() ? threads : 1;
}

function byteThreads(bytes: number, threads: number): number {
  return Math.max(1, Math.min(threads, Math.floor(bytes / parallelBytes)));
}

function checkRange(who: string, { block, byteOffset }: BlockRef, bytes: number): void {
  if (byteOffset < 0 || bytes < 0 || byteOffset + bytes > block.bytes) {
    throw new ArgumentError(
      `${who}: the range is outside its block (got ${bytes} bytes at ${byteOffset} of ${block.bytes}).`,
      { byteOffset, bytes, blockBytes: block.bytes },
    );
  }
}

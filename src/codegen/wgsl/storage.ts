/**
 * Operands as WebGPU bindings, and reading and writing their elements.
 *
 * Every storage buffer is declared `array<u32>` (one buffer may hold operands of several dtypes, as an
 * arena does): 32-bit elements are one word each, float16 and bfloat16 lie two to a word, int8 and
 * bool four, the first in the low bits. Binding 0 is a uniform block of u32 words, four to a vector:
 * word k is the place of operand k in its buffer, in words; then one word per run-time scalar.
 *
 * No two invocations may write one word. Where an invocation can own whole words the kernel packs and
 * writes them; elsewhere the buffer is declared `array<atomic<u32>>` and an element is written by
 * clearing and setting its own bits, so the outcome does not depend on who comes first.
 */

import { bytesPerElement, type DType } from '../../core/dtype.ts';
import { UnsupportedError } from '../../core/errors.ts';
import type { ComputeType } from '../../ir/expr.ts';
import { computeType, type KernelSpec } from '../../ir/kernel.ts';
import { castText, wordAs } from './expressions.ts';
import type { UsedFunctions } from './library.ts';
import { u32Text, type WgslText } from './text.ts';

export interface WgslBinding {
  readonly binding: number;
  readonly type: 'uniform' | 'read-only-storage' | 'storage';
  /** Operands that lie in the buffer; empty for the launch block. */
  readonly operands: readonly number[];
}

/** Storage buffers every WebGPU device allows in a compute stage. */
export const defaultStorageBuffers = 8;

export function elementsPerWord(dtype: DType): number {
  return 4 / bytesPerElement(dtype);
}

/** Bytes of the launch block of a kernel with so many operands and scalars. */
export function launchBytes(operands: number, scalars: number): number {
  return Math.max(1, Math.ceil((operands + scalars) / 4)) * 16;
}

export interface StorageOptions {
  /** Operands with equal numbers lie in one GPU buffer and share a binding. Default: all differ. */
  readonly buffers?: readonly number[];
  /** The device's `maxStorageBuffersPerShaderStage`; default 8. */
  readonly maxStorageBuffers?: number;
}

interface Use {
  readonly operand: number;
  readonly writes: boolean;
  readonly atomic: boolean;
}

export class KernelStorage {
  readonly bindings: readonly WgslBinding[];
  readonly #functions: UsedFunctions;
  readonly #operands: number;
  readonly #launchVectors: number;
  readonly #ofOperand = new Map<number, number>();
  readonly #atomic = new Set<number>();

  constructor(
    spec: Pick<KernelSpec, 'operands' | 'scalars'>,
    uses: readonly Use[],
    options: StorageOptions,
    functions: UsedFunctions,
  ) {
    this.#functions = functions;
    this.#operands = spec.operands;
    this.#launchVectors = launchBytes(spec.operands, spec.scalars.length) / 16;
    const used = [...new Set(uses.map((use) => use.operand))].sort((a, b) => a - b);
    const groups = new Map<number, number[]>();
    for (const operand of used) {
      const group = options.buffers?.[operand] ?? operand;
      groups.set(group, [...(groups.get(group) ?? []), operand]);
    }
    const limit = options.maxStorageBuffers ?? defaultStorageBuffers;
    if (groups.size > limit) {
      throw new UnsupportedError(
        `generateWgslKernel: too many storage buffers (got ${groups.size}, the device allows ${limit}). ` +
          'Place operands in one buffer and say so in `buffers`, or split the kernel.',
        { buffers: groups.size, limit },
      );
    }
    const bindings: WgslBinding[] = [{ binding: 0, type: 'uniform', operands: [] }];
    for (const operands of groups.values()) {
      const binding = bindings.length;
      const inside = uses.filter((use) => operands.includes(use.operand));
      for (const operand of operands) this.#ofOperand.set(operand, binding);
      if (inside.some((use) => use.atomic)) this.#atomic.add(binding);
      const writes = inside.some((use) => use.writes);
      bindings.push({ binding, type: writes ? 'storage' : 'read-only-storage', operands });
    }
    this.bindings = bindings;
  }

  declare(text: WgslText): void {
    text.line(
      `@group(0) @binding(0) var<uniform> launch: array<vec4<u32>, ${this.#launchVectors}>;`,
    );
    for (const { binding, type } of this.bindings) {
      if (type === 'uniform') continue;
      const access = type === 'storage' ? 'read_write' : 'read';
      const element = this.#atomic.has(binding) ? 'atomic<u32>' : 'u32';
      text.line(
        `@group(0) @binding(${binding}) var<storage, ${access}> buffer${binding}: array<${element}>;`,
      );
    }
  }

  scalarWord(index: number): string {
    return this.#launchWord(this.#operands + index);
  }

  /** The element at `index` (a u32 expression, in elements from the operand's place). */
  load(operand: number, dtype: DType, index: string): { text: string; type: ComputeType } {
    const type = computeType(dtype);
    const perWord = elementsPerWord(dtype);
    const word = this.#read(operand, wordIndex(index, perWord));
    if (perWord === 1) return { text: wordAs(word, type), type };
    const shift = shiftText(index, perWord);
    switch (dtype) {
      case 'float16': {
        const decode = this.#functions.use('f32FromHalf');
        return { text: `${decode}((${word} >> ${shift}) & 0xffffu)`, type };
      }
      case 'bfloat16':
        return { text: `bitcast<f32>((${word} >> ${shift}) << 16u)`, type };
      case 'int8':
        return { text: `extractBits(bitcast<i32>(${word}), ${shift}, 8u)`, type };
      default:
        return { text: `((${word} >> ${shift}) & 0xffu) != 0u`, type };
    }
  }

  /** The stored bits of a value, in the low end of a u32. */
  encode(value: string, type: ComputeType, dtype: DType): string {
    const stored = castText(value, type, computeType(dtype), this.#functions);
    switch (dtype) {
      case 'float16':
        return `${this.#functions.use('halfFromF32')}(${stored})`;
      case 'bfloat16':
        return `${this.#functions.use('brainFromF32')}(${stored})`;
      case 'float32':
        return `bitcast<u32>(${stored})`;
      case 'int32':
        return `bitcast<u32>(${stored})`;
      case 'uint32':
        return stored;
      case 'int8':
        return `bitcast<u32>(${stored}) & 0xffu`;
      case 'bool':
        return `u32(${stored})`;
    }
  }

  /** Writes one element whose word no other invocation writes, or whose buffer is atomic. */
  store(text: WgslText, operand: number, dtype: DType, index: string, bits: string): void {
    const perWord = elementsPerWord(dtype);
    if (perWord === 1) {
      this.storeWord(text, operand, index, bits);
      return;
    }
    const mask = u32Text(2 ** (32 / perWord) - 1);
    text.block('', () => {
      text.line(`let e = ${index};`);
      text.line(`let shift = ${shiftText('e', perWord)};`);
      const place = this.#place(operand, wordIndex('e', perWord));
      text.line(`atomicAnd(&${place}, ~(${mask} << shift));`);
      text.line(`atomicOr(&${place}, (${bits}) << shift);`);
    });
  }

  /** Writes the word at `index`, in words from the operand's place. */
  storeWord(text: WgslText, operand: number, index: string, bits: string): void {
    const place = this.#place(operand, index);
    const atomic = this.#atomic.has(this.#bindingOf(operand));
    text.line(atomic ? `atomicStore(&${place}, ${bits});` : `${place} = ${bits};`);
  }

  /** The word at `index`, in words from the operand's place. */
  loadWord(operand: number, index: string): string {
    return this.#read(operand, index);
  }

  #read(operand: number, index: string): string {
    const place = this.#place(operand, index);
    return this.#atomic.has(this.#bindingOf(operand)) ? `atomicLoad(&${place})` : place;
  }

  #place(operand: number, index: string): string {
    return `buffer${this.#bindingOf(operand)}[${this.#launchWord(operand)} + ${index}]`;
  }

  #bindingOf(operand: number): number {
    return this.#ofOperand.get(operand)!;
  }

  #launchWord(word: number): string {
    return `launch[${Math.floor(word / 4)}].${'xyzw'[word % 4]}`;
  }
}

function wordIndex(index: string, perWord: number): string {
  return perWord === 1 ? index : `((${index}) >> ${perWord === 2 ? 1 : 2}u)`;
}

function shiftText(index: string, perWord: number): string {
  return perWord === 2 ? `(((${index}) & 1u) * 16u)` : `(((${index}) & 3u) * 8u)`;
}

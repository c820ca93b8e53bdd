/**
 * A WebAssembly module under construction: imports first, then functions, then `bytes()`. The
 * memory is always imported (`env.memory`, shared), because all modules of a process work in one.
 */

import { invariant } from '../../core/errors.ts';
import type { Code } from './encoding.ts';
import { flatten, nameBytes, sectionBytes, unsignedLeb, vectorBytes } from './encoding.ts';
import type { FunctionRef, Kind, Kinds, Parameters } from './function.ts';
import { FunctionBuilder, machineType } from './function.ts';
import type { ValueType } from './opcodes.ts';
import { valueTypes } from './opcodes.ts';
import type { AddressType } from './pointer.ts';

export interface ModuleOptions {
  /** Width of pointers; must be that of the memory the module is instantiated with. Default i32. */
  readonly address?: AddressType;
  /** Use relaxed SIMD (fused multiply-add). Without it `madd` is a multiplication and an addition. */
  readonly relaxed?: boolean;
  /** Whether the imported memory is shared. Default true. */
  readonly shared?: boolean;
}

export interface FunctionOptions<R extends Kind | 'none'> {
  readonly result?: R;
  /** Under which name the function is exported; default its own name; false keeps it inside. */
  readonly export?: string | false;
}

/** Most pages that the imported memory may declare as its maximum. */
export const maxPages = { i32: 65536, i64: 262144 } as const;

interface Entry {
  readonly typeIndex: number;
  readonly name: string;
  readonly body: Code;
}

export class ModuleBuilder {
  readonly address: AddressType;
  readonly relaxed: boolean;
  private readonly shared: boolean;
  private readonly types = new Map<string, number>();
  private readonly typeCode: Code[] = [];
  private readonly imports: Code[] = [];
  private readonly importNames: string[] = [];
  private readonly entries: Entry[] = [];
  private readonly exports: Code[] = [];

  constructor(options: ModuleOptions = {}) {
    this.address = options.address ?? 'i32';
    this.relaxed = options.relaxed ?? false;
    this.shared = options.shared ?? true;
    const flags = 1 | (this.shared ? 2 : 0) | (this.address === 'i64' ? 4 : 0);
    const limits = [flags, 0, ...unsignedLeb(maxPages[this.address])];
    this.imports.push([nameBytes('env'), nameBytes('memory'), 2, limits]);
  }

  /** Declares an imported function. Must come before the first `func`. */
  importFunc<const P extends readonly Kind[], R extends Kind | 'none' = 'none'>(
    module: string,
    name: string,
    params: P,
    result: R = 'none' as R,
  ): FunctionRef<P, R> {
    invariant(this.entries.length === 0, () => 'ModuleBuilder: imports come before functions');
    const type = this.typeIndex(params, result);
    this.imports.push([nameBytes(module), nameBytes(name), 0, unsignedLeb(type)]);
    this.importNames.push(name);
    return { name, index: this.importNames.length - 1, params, result };
  }

  /**
   * Builds a function. `body` gets the builder and one variable per parameter, and returns the
   * result if the signature has one.
   */
  func<const P extends readonly Kind[], R extends Kind | 'none' = 'none'>(
    name: string,
    params: P,
    body: (f: FunctionBuilder, ...args: Parameters<P>) => R extends Kind ? Kinds[R] : void,
    options: FunctionOptions<R> = {},
  ): FunctionRef<P, R> {
    const result = options.result ?? ('none' as R);
    const index = this.importNames.length + this.entries.length;
    const f = new FunctionBuilder(params.length, this);
    const variables = params.map((kind, i) => f.variable(kind, i));
    const value = body(f, ...(variables as unknown as Parameters<P>));
    const typeIndex = this.typeIndex(params, result);
    invariant(
      index === this.importNames.length + this.entries.length,
      () => `ModuleBuilder: ${name} builds another function inside its body`,
    );
    this.entries.push({ typeIndex, name, body: f.seal(value ?? undefined) });
    if (options.export !== false) {
      this.exports.push([nameBytes(options.export ?? name), 0, unsignedLeb(index)]);
    }
    return { name, index, params, result };
  }

  /** The binary module. */
  bytes(): Uint8Array<ArrayBuffer> {
    const functions = this.entries.map((entry) => unsignedLeb(entry.typeIndex));
    const names = [...this.importNames, ...this.entries.map((entry) => entry.name)].map(
      (name, index): Code => [unsignedLeb(index), nameBytes(name)],
    );
    return Uint8Array.from(
      flatten([
        [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
        sectionBytes(1, vectorBytes(this.typeCode)),
        sectionBytes(2, vectorBytes(this.imports)),
        sectionBytes(3, vectorBytes(functions)),
        sectionBytes(7, vectorBytes(this.exports)),
        sectionBytes(10, vectorBytes(this.entries.map((entry) => entry.body))),
        sectionBytes(0, [nameBytes('name'), sectionBytes(1, vectorBytes(names))]),
      ]),
    );
  }

  private typeIndex(params: readonly Kind[], result: Kind | 'none'): number {
    const machine = (kind: Kind): ValueType => machineType(kind, this.address);
    const results = result === 'none' ? [] : [machine(result)];
    const key = `${params.map(machine)}>${results}`;
    const known = this.types.get(key);
    if (known !== undefined) return known;
    const index = this.typeCode.length;
    this.types.set(key, index);
    const encode = (list: readonly ValueType[]): Code =>
      vectorBytes(list.map((t) => [valueTypes[t]]));
    this.typeCode.push([0x60, encode(params.map(machine)), encode(results)]);
    return index;
  }
}

/**
 * The part of the WebAssembly JavaScript interface that Retune uses.
 *
 * TypeScript ships these types only inside the DOM library, which would also let window and document
 * type-check in code that runs in Node. Shared memories, memory64 (the `address` descriptor) and
 * SharedArrayBuffer-backed buffers are included. This file is ambient: nothing imports it, and it is
 * not part of the published package.
 * Source: https://webassembly.github.io/spec/js-api/
 */
declare namespace WebAssembly {
  type ImportExportKind = 'function' | 'global' | 'memory' | 'table' | 'tag';
  type ValueType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128' | 'externref' | 'anyfunc';
  type AddressType = 'i32' | 'i64';
  type ExportValue = ((...args: never[]) => unknown) | Global | Memory | Table;
  type ImportValue = ExportValue | number | bigint;
  type Exports = Record<string, ExportValue>;
  type Imports = Record<string, Record<string, ImportValue>>;

  /** `initial` and `maximum` are in 64 KiB pages; BigInt when `address` is 'i64'. */
  interface MemoryDescriptor {
    initial: number | bigint;
    maximum?: number | bigint;
    shared?: boolean;
    address?: AddressType;
  }

  interface TableDescriptor {
    element: 'anyfunc' | 'externref';
    initial: number;
    maximum?: number;
  }

  interface GlobalDescriptor {
    value: ValueType;
    mutable?: boolean;
  }

  interface ModuleExportDescriptor {
    name: string;
    kind: ImportExportKind;
  }

  interface ModuleImportDescriptor {
    module: string;
    name: string;
    kind: ImportExportKind;
  }

  interface InstantiatedSource {
    module: Module;
    instance: Instance;
  }

  class Module {
    constructor(bytes: ArrayBufferView | ArrayBufferLike);
    static exports(module: Module): ModuleExportDescriptor[];
    static imports(module: Module): ModuleImportDescriptor[];
    static customSections(module: Module, name: string): ArrayBuffer[];
  }

  class Instance {
    constructor(module: Module, imports?: Imports);
    readonly exports: Exports;
  }

  class Memory {
    constructor(descriptor: MemoryDescriptor);
    readonly buffer: ArrayBuffer | SharedArrayBuffer;
    /** Grows by `delta` pages and returns the previous size in pages. */
    grow(delta: number): number;
    grow(delta: bigint): bigint;
  }

  class Table {
    constructor(descriptor: TableDescriptor, value?: unknown);
    readonly length: number;
    get(index: number): unknown;
    set(index: number, value?: unknown): void;
    grow(delta: number, value?: unknown): number;
  }

  class Global<T = unknown> {
    constructor(descriptor: GlobalDescriptor, value?: T);
    value: T;
    valueOf(): T;
  }

  class CompileError extends Error {}
  class LinkError extends Error {}
  class RuntimeError extends Error {}

  function validate(bytes: ArrayBufferView | ArrayBufferLike): boolean;
  function compile(bytes: ArrayBufferView | ArrayBufferLike): Promise<Module>;
  function instantiate(module: Module, imports?: Imports): Promise<Instance>;
  function instantiate(
    bytes: ArrayBufferView | ArrayBufferLike,
    imports?: Imports,
  ): Promise<InstantiatedSource>;
}

/** Instantiates generated modules in tests. */

import type { FunctionBuilder } from '../../src/codegen/wasm/function.ts';
import type { ModuleOptions } from '../../src/codegen/wasm/module.ts';
import { ModuleBuilder } from '../../src/codegen/wasm/module.ts';
import type { Ptr } from '../../src/codegen/wasm/pointer.ts';

export interface WasmRun {
  readonly memory: WebAssembly.Memory;
  readonly view: DataView;
  run(...args: (number | bigint)[]): unknown;
}

export function sharedMemory(pages = 2): WebAssembly.Memory {
  return new WebAssembly.Memory({ initial: pages, maximum: 65536, shared: true });
}

export function instantiate(module: ModuleBuilder, memory = sharedMemory(), name = 'run'): WasmRun {
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module.bytes()), {
    env: { memory },
  });
  const run = instance.exports[name] as unknown as WasmRun['run'];
  return { memory, view: new DataView(memory.buffer), run };
}

/** A module with `run(p)` whose body is `body`; memory starts zeroed. */
export function withPointer(
  body: (f: FunctionBuilder, p: Ptr) => void,
  options?: ModuleOptions,
): WasmRun {
  const module = new ModuleBuilder(options);
  module.func('run', ['ptr'], body);
  return instantiate(module);
}

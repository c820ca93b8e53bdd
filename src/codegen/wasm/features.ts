/** Which WebAssembly extensions this engine has, found by validating tiny modules. */

import { ModuleBuilder } from './module.ts';

export interface Features {
  readonly relaxedSimd: boolean;
  readonly memory64: boolean;
}

let relaxedSimd: boolean | undefined;
let memory64: boolean | undefined;

/** Whether relaxed SIMD instructions validate. */
export function hasRelaxedSimd(): boolean {
  if (relaxedSimd === undefined) {
    const module = new ModuleBuilder({ relaxed: true });
    module.func('probe', ['ptr'], (f, p) => {
      f.store(p, f.madd(p.f32x4(), p.f32x4(), p.f32x4()));
    });
    relaxedSimd = WebAssembly.validate(module.bytes());
  }
  return relaxedSimd;
}

/** Whether a shared memory with 64-bit addresses can be imported. */
export function hasMemory64(): boolean {
  if (memory64 === undefined) {
    const module = new ModuleBuilder({ address: 'i64' });
    module.func('probe', ['ptr'], (f, p) => f.store(p, p.i32(), 4));
    memory64 = WebAssembly.validate(module.bytes());
  }
  return memory64;
}

/** All features at once. */
export function wasmFeatures(): Features {
  return { relaxedSimd: hasRelaxedSimd(), memory64: hasMemory64() };
}

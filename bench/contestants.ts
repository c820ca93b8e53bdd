/** Who takes part: environments (a process each) and the variants of a step that each of them runs. */

import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Variant } from './driver/protocol.ts';
import type { ServerCommand } from './driver/server.ts';

export type EnvironmentName = 'retune+blas' | 'retune+wasm' | 'torch';

export interface Environment {
  readonly name: EnvironmentName;
  /** For people. */
  readonly title: string;
  readonly command: (threads: number) => ServerCommand;
}

export interface Entry {
  /** Such as `retune+blas/compiled/full`. */
  readonly name: string;
  readonly environment: EnvironmentName;
  readonly variant: Variant;
}

const here = path.dirname(fileURLToPath(import.meta.url));

/** `python`: an interpreter that has torch; without one PyTorch does not take part. */
export function environments(python: string | undefined): Environment[] {
  const retune = (name: EnvironmentName, title: string, matmul: 'blas' | 'wasm'): Environment => ({
    name,
    title,
    command: (threads) => ({
      program: process.execPath,
      args: [path.join(here, 'retune', 'server.ts')],
      env: { RETUNE_MATMUL: matmul, RETUNE_THREADS: String(threads) },
    }),
  });
  const list = [
    retune('retune+blas', 'Retune, BLAS', 'blas'),
    retune('retune+wasm', 'Retune, generated matmul', 'wasm'),
  ];
  if (python !== undefined) {
    list.unshift({
      name: 'torch',
      title: 'PyTorch',
      command: (threads) => ({
        program: python,
        args: [path.join(here, 'peers', 'torch_server.py')],
        env: { OMP_NUM_THREADS: String(threads), MKL_NUM_THREADS: String(threads) },
      }),
    });
  }
  return list;
}

const variants: readonly Variant[] = [
  { compiled: false, checkpointing: 'none' },
  { compiled: true, checkpointing: 'none' },
  { compiled: false, checkpointing: 'full' },
  { compiled: true, checkpointing: 'full' },
];

/** Ways between none and full, for --checkpointing. Sizes in bytes are those of PyTorch's own variants of config L. */
const between: readonly { readonly variant: Variant; readonly torch: boolean }[] = [
  { variant: { compiled: false, checkpointing: 'op' }, torch: true },
  { variant: { compiled: true, checkpointing: 'op' }, torch: true },
  { variant: { compiled: true, checkpointing: 'budget:50%' }, torch: true },
  { variant: { compiled: true, checkpointing: 'budget:20%' }, torch: true },
  { variant: { compiled: true, checkpointing: 'budget:282MiB' }, torch: false },
  { variant: { compiled: true, checkpointing: 'budget:254MiB' }, torch: false },
  { variant: { compiled: true, checkpointing: 'budget:224MiB' }, torch: false },
  { variant: { compiled: true, checkpointing: 'budget:189MiB' }, torch: false },
  { variant: { compiled: true, checkpointing: 'budget:79MiB' }, torch: false },
  { variant: { compiled: true, checkpointing: 'budget:50%+bf16' }, torch: false },
  { variant: { compiled: true, checkpointing: 'budget:50%+int8' }, torch: false },
  { variant: { compiled: true, checkpointing: 'budget:79MiB+int8' }, torch: false },
  // What full needs.
  { variant: { compiled: true, checkpointing: 'budget:65MiB+int8' }, torch: false },
];

/** Every environment's variants, those to be compared with one another side by side. */
export function entriesOf(list: readonly Environment[], checkpointing = false): Entry[] {
  const all = variants.map((variant) => ({ variant, takesPart: (_: EnvironmentName) => true }));
  // What is kept does not depend on who multiplies matrices: one Retune stands for both.
  const more = between.map(({ variant, torch }) => ({
    variant,
    takesPart: (name: EnvironmentName) => name === 'retune+blas' || (torch && name === 'torch'),
  }));
  return (checkpointing ? [...all, ...more] : all).flatMap(({ variant, takesPart }) =>
    list.flatMap(({ name }) =>
      takesPart(name) ? [{ name: entryName(name, variant), environment: name, variant }] : [],
    ),
  );
}

export function entryName(environment: EnvironmentName, variant: Variant): string {
  return `${environment}/${variant.compiled ? 'compiled' : 'eager'}/${variant.checkpointing}`;
}

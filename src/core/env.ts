/** The only reader of environment variables. Each one is listed here with its meaning. */

const described = {
  RETUNE_THREADS: 'number of CPU threads, the calling one included (default: the cores there are)',
  RETUNE_MATMUL: 'matrix multiply of the cpu backend: blas, wasm or auto (default: auto)',
  RETUNE_BLAS: 'path of the BLAS library to load instead of searching for one',
  RETUNE_BACKEND: 'backend that is used when none is chosen: cpu or reference (default: cpu)',
  RETUNE_OFFLOAD_DIR:
    "folder for offloaded activations (default: the system's folder for temporary files)",
  RETUNE_CACHE_DIR: 'folder for what was measured on this machine (default: ~/.cache/retune)',
  RETUNE_VERIFY: 'set to 1 to verify the graph after every compile pass',
} as const;

export type EnvName = keyof typeof described;

export const envDescriptions: Readonly<Record<EnvName, string>> = described;

/** The value of an environment variable; undefined when unset, empty, or outside Node. */
export function readEnv(name: EnvName): string | undefined {
  const value = globalThis.process?.env?.[name];
  return value === '' ? undefined : value;
}

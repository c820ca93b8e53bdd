/**
 * The folder in which one process keeps what it moved out of memory: `retune-offload-<host>-<pid>-<text>`
 * below a folder of the user's, with one file. It is removed when it is closed and when the process
 * exits; what a killed process left behind is removed by the next one that opens a folder there.
 */

import { readEnv } from '../../../core/env.ts';
import { UnsupportedError } from '../../../core/errors.ts';
import { fileErrorFrom } from '../../../core/file-error.ts';
import { isProcessAlive } from '../../../core/process.ts';
import { nodeModule } from '../platform.ts';

export interface OffloadFolder {
  readonly path: string;
  /** Descriptor of its file, open for reading and writing. */
  readonly file: number;
  close(): void;
}

/** The error of a failed transfer: `code` is the system's. */
export function offloadError(path: string, code: string): unknown {
  const cause = Object.assign(new RangeError(code), { code });
  return fileErrorFrom('offloadActivations', path, cause, remedy);
}

const remedy =
  'Name another folder (dir of the offload setting, or RETUNE_OFFLOAD_DIR), or turn offloading off. Parameters are as before the step.';

/** Type number of tmpfs in statfs(2). */
const tmpfs = 0x01021994;
let warnedMemoryFolder = false;

/** Opens a folder below `dir`, which is made if need be. Throws FileError. */
export function openOffloadFolder(dir: string | undefined): OffloadFolder {
  const [fs, os, path] = [nodeModule('node:fs'), nodeModule('node:os'), nodeModule('node:path')];
  if (!fs || !os || !path) {
    throw new UnsupportedError(
      'offloadActivations: this host has no files (got a place of kind file). Turn offloading off.',
    );
  }
  const parent = path.resolve(dir ?? readEnv('RETUNE_OFFLOAD_DIR') ?? os.tmpdir());
  try {
    fs.mkdirSync(parent, { recursive: true });
    const host = os.hostname().replace(/[^A-Za-z0-9]/g, '_');
    const prefix = `retune-offload-${host}-`;
    removeStale(fs, parent, prefix, path.join);
    if (fs.statfsSync(parent).type === tmpfs && !warnedMemoryFolder) {
      warnedMemoryFolder = true;
      globalThis.process?.emitWarning(
        `offloadActivations: ${parent} is kept in memory (tmpfs), so moving activations there frees none. ` +
          'Name a folder on a disk in dir or RETUNE_OFFLOAD_DIR.',
      );
    }
    const folder = fs.mkdtempSync(path.join(parent, `${prefix}${process.pid}-`));
    const remove = (): void => fs.rmSync(folder, { recursive: true, force: true });
    try {
      const file = fs.openSync(path.join(folder, 'values'), 'wx+', 0o600);
      process.on('exit', remove);
      return {
        path: folder,
        file,
        close: () => {
          process.off('exit', remove);
          fs.closeSync(file);
          remove();
        },
      };
    } catch (cause) {
      remove();
      throw cause;
    }
  } catch (cause) {
    throw fileErrorFrom('offloadActivations', parent, cause, remedy);
  }
}

type Fs = typeof import('node:fs');

function removeStale(
  fs: Fs,
  parent: string,
  prefix: string,
  join: (...parts: string[]) => string,
): void {
  for (const name of fs.readdirSync(parent)) {
    if (!name.startsWith(prefix)) continue;
    const pid = Number.parseInt(name.slice(prefix.length), 10);
    if (!Number.isInteger(pid) || isProcessAlive(pid)) continue;
    fs.rmSync(join(parent, name), { recursive: true, force: true });
  }
}

/**
 * Writing files and folders so that a reader sees the whole old content or the whole new one, also
 * after a full disk, an exception or a killed process.
 *
 * Everything is built under a sibling name `.<name>.partial-<host>-<pid>-<n>`, flushed to the device,
 * then renamed into place. A process that dies leaves only such a partial; the next write of the
 * same path removes the partials of processes that are gone.
 *
 * A file is replaced by one rename. A folder cannot be: the old one is first renamed to
 * `.<name>.previous`, then the new one takes its place. A process killed between these two renames
 * leaves the old content under the second name; `recoverFolder` puts it back.
 */

import { hostname } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileErrorFrom } from '../../core/file-error.ts';
import { isProcessAlive } from '../../core/process.ts';
import { type FileSystem, nodeFileSystem, type WritableFile } from './file-system.ts';

export interface AtomicWriteOptions {
  /** The file operations to use; tests pass one that fails. */
  readonly fs?: FileSystem;
  /** Name that errors start with (default: the function's own). */
  readonly who?: string;
}

/**
 * Replaces the file at `path` with `content`: text, bytes, or a function that appends to the open
 * file. The folder must exist. Throws FileError, and then the previous file is untouched.
 */
export async function writeFileAtomic(
  path: string,
  content: string | Uint8Array | ((file: WritableFile) => Promise<void>),
  options: AtomicWriteOptions = {},
): Promise<void> {
  const fs = options.fs ?? nodeFileSystem;
  const target = resolve(path);
  const partial = partialPath(target);
  let state = kept;
  try {
    await removeStalePartials(fs, target);
    const file = await fs.create(partial);
    try {
      if (typeof content === 'function') await content(file);
      else await file.append(typeof content === 'string' ? Buffer.from(content) : content);
      await file.sync();
    } finally {
      await file.close();
    }
    await fs.rename(partial, target);
    state = unflushed;
    await fs.syncFolder(dirname(target));
  } catch (cause) {
    await removeQuietly(fs, partial);
    throw fileErrorFrom(options.who ?? 'writeFileAtomic', path, cause, state);
  }
}

/**
 * Replaces the folder at `path` by what `build` writes into the empty folder it is given; all of it
 * is flushed before it becomes visible. Folders above `path` are made. Throws FileError (or the error
 * of `build`), and then the previous folder is whole and in place.
 */
export async function writeFolderAtomic(
  path: string,
  build: (folder: string) => Promise<void>,
  options: AtomicWriteOptions = {},
): Promise<void> {
  const fs = options.fs ?? nodeFileSystem;
  const target = resolve(path);
  const partial = partialPath(target);
  const previous = previousPath(target);
  let state = kept;
  try {
    await fs.makeFolder(dirname(target));
    await recover(fs, target);
    await removeStalePartials(fs, target);
    await fs.makeFolder(partial);
    await build(partial);
    await syncTree(fs, partial);
    const replaces = await fs.exists(target);
    if (replaces) await fs.rename(target, previous);
    try {
      await fs.rename(partial, target);
    } catch (cause) {
      if (replaces) await fs.rename(previous, target);
      throw cause;
    }
    state = unflushed;
    await fs.syncFolder(dirname(target));
  } catch (cause) {
    await removeQuietly(fs, partial);
    throw fileErrorFrom(options.who ?? 'writeFolderAtomic', path, cause, state);
  }
  // The new folder is in place: what is left of the old one is garbage, and not a reason to fail.
  await removeQuietly(fs, previous);
}

/**
 * Brings back the folder at `path` if a process was killed while it replaced it. Call it before
 * reading a folder that `writeFolderAtomic` writes. Returns whether there is a folder now.
 */
export async function recoverFolder(
  path: string,
  options: AtomicWriteOptions = {},
): Promise<boolean> {
  const fs = options.fs ?? nodeFileSystem;
  try {
    return await recover(fs, resolve(path));
  } catch (cause) {
    throw fileErrorFrom(options.who ?? 'recoverFolder', path, cause);
  }
}

const kept = 'What was saved there before is unchanged.';
const unflushed = 'The new content is in place, but a power failure now could lose it.';

let partialCount = 0;

function partialPath(target: string): string {
  partialCount++;
  return `${partialPrefix(target)}${process.pid}-${partialCount}`;
}

function partialPrefix(target: string): string {
  const host = hostname().replace(/[^A-Za-z0-9]/g, '_');
  return join(dirname(target), `.${basename(target)}.partial-${host}-`);
}

function previousPath(target: string): string {
  return join(dirname(target), `.${basename(target)}.previous`);
}

async function recover(fs: FileSystem, target: string): Promise<boolean> {
  const previous = previousPath(target);
  const present = await fs.exists(target);
  if (!(await fs.exists(previous))) return present;
  if (present) {
    await fs.remove(previous);
    return true;
  }
  await fs.rename(previous, target);
  await fs.syncFolder(dirname(target));
  return true;
}

async function removeStalePartials(fs: FileSystem, target: string): Promise<void> {
  const prefix = basename(partialPrefix(target));
  const folder = dirname(target);
  for (const entry of await fs.list(folder)) {
    if (!entry.name.startsWith(prefix)) continue;
    const pid = Number.parseInt(entry.name.slice(prefix.length), 10);
    if (Number.isInteger(pid) && !isProcessAlive(pid)) await fs.remove(join(folder, entry.name));
  }
}

async function syncTree(fs: FileSystem, folder: string): Promise<void> {
  for (const entry of await fs.list(folder)) {
    const path = join(folder, entry.name);
    await (entry.isFolder ? syncTree(fs, path) : fs.syncFile(path));
  }
  await fs.syncFolder(folder);
}

/** Removes what is left of a failed write; the failure that led here is the one to report. */
async function removeQuietly(fs: FileSystem, path: string): Promise<void> {
  try {
    await fs.remove(path);
  } catch {
    // The next write of the same path tries again.
  }
}

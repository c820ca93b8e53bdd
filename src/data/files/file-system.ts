/**
 * The few file operations that safe writing needs, as an interface, so that tests can make any one
 * of them fail. `nodeFileSystem` is the real one.
 */

import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { systemCode } from '../../core/file-error.ts';

export interface WritableFile {
  /** Writes all of `bytes` at the end of what was appended so far. */
  append(bytes: Uint8Array): Promise<void>;
  /** Writes all of `bytes` at `position` and leaves the place of the next append alone. */
  writeAt(bytes: Uint8Array, position: number): Promise<void>;
  /** Returns once the data is on the device. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface FolderEntry {
  readonly name: string;
  readonly isFolder: boolean;
}

export interface FileSystem {
  /** Creates an empty file, or empties the one there is. */
  create(path: string): Promise<WritableFile>;
  /** Flushes a file that is complete. */
  syncFile(path: string): Promise<void>;
  /** Flushes a folder's list of names; does nothing where the platform cannot. */
  syncFolder(path: string): Promise<void>;
  makeFolder(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file or a whole folder; a missing path is no error. */
  remove(path: string): Promise<void>;
  exists(path: string): Promise<boolean>;
  list(path: string): Promise<FolderEntry[]>;
}

export const nodeFileSystem: FileSystem = {
  async create(path) {
    const handle = await open(path, 'w');
    let end = 0;
    const writeAt = async (bytes: Uint8Array, position: number): Promise<void> => {
      let done = 0;
      while (done < bytes.byteLength) {
        // One system call takes less than 2 GiB, and may take less than it was given.
        const length = Math.min(bytes.byteLength - done, maxTransferBytes);
        const { bytesWritten } = await handle.write(bytes, done, length, position + done);
        done += bytesWritten;
      }
    };
    return {
      async append(bytes) {
        await writeAt(bytes, end);
        end += bytes.byteLength;
      },
      writeAt,
      sync: () => handle.sync(),
      close: () => handle.close(),
    };
  },
  async syncFile(path) {
    await using handle = await open(path, 'r+');
    await handle.sync();
  },
  async syncFolder(path) {
    if (process.platform === 'win32') return; // A folder cannot be opened there.
    await using handle = await open(path, 'r');
    try {
      await handle.sync();
    } catch (cause) {
      const code = systemCode(cause);
      if (code !== 'EINVAL' && code !== 'ENOTSUP') throw cause; // Some network file systems.
    }
  },
  async makeFolder(path) {
    await mkdir(path, { recursive: true });
  },
  rename,
  async remove(path) {
    await rm(path, { recursive: true, force: true });
  },
  async exists(path) {
    try {
      await stat(path);
      return true;
    } catch (cause) {
      const code = systemCode(cause);
      if (code === 'ENOENT' || code === 'ENOTDIR') return false;
      throw cause;
    }
  },
  async list(path) {
    const entries = await readdir(path, { withFileTypes: true });
    return entries.map((entry) => ({ name: entry.name, isFolder: entry.isDirectory() }));
  },
};

/** Bytes moved by one read or write call. */
export const maxTransferBytes = 1 << 28;

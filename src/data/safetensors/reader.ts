/**
 * Reads tensors from safetensors files: one file, or shards listed by `model.safetensors.index.json`.
 * Opening reads and checks the headers of all files; a tensor's bytes are read only when asked for,
 * from their place in the file. The files stay open until `close`.
 */

import { type FileHandle, open, readdir, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { DType } from '../../core/dtype.ts';
import { FileError, nearest } from '../../core/errors.ts';
import type { HostTensor } from '../../core/host-tensor.ts';
import { formatShape, numElements, type Shape, sameShape } from '../../core/shape.ts';
import { fileErrorFrom, systemCode } from '../../core/file-error.ts';
import { maxTransferBytes } from '../files/file-system.ts';
import {
  type Header,
  lengthBytes,
  parseHeader,
  parseHeaderLength,
  type TensorRecord,
} from './header.ts';
import { storedDTypes } from './stored-dtype.ts';

export interface TensorInfo {
  readonly name: string;
  readonly shape: Shape;
  /** What `read` returns; undefined when this dtype cannot be read. */
  readonly dtype: DType | undefined;
  /** Spelling of the file, such as BF16 or I64. */
  readonly stored: string;
  /** Bytes in the file. */
  readonly bytes: number;
  readonly file: string;
}

export interface TensorReadOptions {
  /** The shape that the tensor must have. */
  readonly shape?: Shape;
}

/** An open file or set of shards. Close it, or declare it with `await using`. */
export class SafetensorsFile {
  /** As it was opened. */
  readonly path: string;
  /** Names in the order of the files, and within a file of their data. */
  readonly names: readonly string[];
  /** `__metadata__` of all files together; the index's own is not part of it. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly #places: ReadonlyMap<string, Place>;
  readonly #shards: readonly Shard[];

  /** @internal Use openSafetensors. */
  constructor(path: string, shards: readonly Shard[]) {
    this.path = path;
    this.#shards = shards;
    const places = new Map<string, Place>();
    for (const shard of shards) {
      for (const record of shard.header.tensors.values()) {
        const other = places.get(record.name);
        if (other !== undefined) {
          throw new FileError(
            `openSafetensors: tensor '${record.name}' is in two files (got ${other.shard.path} and ` +
              `${shard.path}). Remove one of them.`,
            { path, tensor: record.name },
          );
        }
        places.set(record.name, { shard, record });
      }
    }
    this.#places = places;
    this.names = [...places.keys()];
    this.metadata = Object.assign({}, ...shards.map((shard) => shard.header.metadata));
  }

  has(name: string): boolean {
    return this.#places.has(name);
  }

  /** What the header says of a tensor. Throws FileError with the nearest names if it is missing. */
  info(name: string): TensorInfo {
    const { shard, record } = this.#find('SafetensorsFile.info', name);
    const { stored, shape, bytes } = record;
    return {
      name,
      shape,
      dtype: storedDTypes.get(stored)?.dtype,
      stored,
      bytes,
      file: shard.path,
    };
  }

  /**
   * Reads one tensor. F64 becomes float32; I64 and I16 become int32; U64, U16 and U8 become uint32.
   * Throws FileError when it is missing, has another shape than `options.shape`, holds an integer
   * outside the narrower dtype, or has a dtype that Retune does not read (8-bit floats, complex).
   */
  async read(name: string, options: TensorReadOptions = {}): Promise<HostTensor> {
    const who = 'SafetensorsFile.read';
    const { shard, record } = this.#find(who, name);
    const { stored, shape } = record;
    const details = { path: shard.path, tensor: name };
    if (options.shape !== undefined && !sameShape(options.shape, shape)) {
      throw new FileError(
        `${who}: ${shard.path}: tensor '${name}' has another shape (expected ${formatShape(options.shape)}, ` +
          `got ${formatShape(shape)}). Use the configuration that belongs to these weights.`,
        { ...details, expected: options.shape, found: shape },
      );
    }
    const info = storedDTypes.get(stored);
    if (info?.dtype === undefined) {
      throw new FileError(
        `${who}: ${shard.path}: tensor '${name}' has a dtype that cannot be read (got ${stored}). ` +
          'Convert the file to BF16, F16 or F32.',
        { ...details, found: stored },
      );
    }
    const bytes = await readBytes(shard, record);
    if (info.convert === undefined) return { dtype: info.dtype, shape, data: bytes };
    const converted = info.convert(bytes, numElements(shape));
    if ('data' in converted) return { dtype: info.dtype, shape, data: converted.data };
    throw new FileError(
      `${who}: ${shard.path}: element ${converted.badIndex} of tensor '${name}' does not fit ${info.dtype} ` +
        `(got ${converted.badValue}, stored as ${stored}). Store it with values in range.`,
      { ...details, element: converted.badIndex },
    );
  }

  async close(): Promise<void> {
    await Promise.all(this.#shards.map((shard) => shard.handle.close()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #find(who: string, name: string): Place {
    const place = this.#places.get(name);
    if (place !== undefined) return place;
    const near = nearest(name, this.names).map((other) => `'${other}'`);
    throw new FileError(
      `${who}: ${this.path} has no tensor '${name}' (got ${this.names.length} tensors` +
        `${near.length > 0 ? `, the nearest are ${near.join(', ')}` : ''}). Check the name and the model family.`,
      { path: this.path, tensor: name },
    );
  }
}

/**
 * Opens a `.safetensors` file, an index `.json`, or a folder that holds `model.safetensors` or its
 * index (or exactly one other such file). Throws FileError for a missing, truncated or malformed file
 * and for an index that disagrees with its shards.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const file = await resolveFile(path);
  if (!file.endsWith('.json')) return openFiles(path, [file]);
  const index = await readIndex(file);
  const folder = dirname(file);
  const shardNames = [...new Set(index.values())];
  const opened = await openFiles(
    path,
    shardNames.map((name) => join(folder, name)),
  );
  try {
    checkIndex(file, index, opened);
    return opened;
  } catch (cause) {
    await opened.close();
    throw cause;
  }
}

interface Shard {
  readonly path: string;
  readonly handle: FileHandle;
  readonly header: Header;
  /** Where the data section begins in the file. */
  readonly dataStart: number;
}

interface Place {
  readonly shard: Shard;
  readonly record: TensorRecord;
}

const who = 'openSafetensors';

async function openFiles(path: string, files: readonly string[]): Promise<SafetensorsFile> {
  const shards: Shard[] = [];
  try {
    for (const file of files) shards.push(await openShard(file));
    return new SafetensorsFile(path, shards);
  } catch (cause) {
    await Promise.all(shards.map((shard) => shard.handle.close()));
    throw cause;
  }
}

async function openShard(path: string): Promise<Shard> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, 'r');
    const { size } = await handle.stat();
    const prefix = await readAt(handle, 0, Math.min(lengthBytes, size));
    const length = parseHeaderLength(path, prefix, size);
    const json = await readAt(handle, lengthBytes, length);
    const dataStart = lengthBytes + length;
    return { path, handle, header: parseHeader(path, json, size - dataStart), dataStart };
  } catch (cause) {
    await handle?.close();
    throw fileErrorFrom(who, path, cause);
  }
}

async function readBytes(shard: Shard, record: TensorRecord): Promise<Uint8Array> {
  let bytes: Uint8Array;
  try {
    bytes = await readAt(shard.handle, shard.dataStart + record.begin, record.bytes);
  } catch (cause) {
    throw fileErrorFrom('SafetensorsFile.read', shard.path, cause);
  }
  if (bytes.byteLength === record.bytes) return bytes;
  throw new FileError(
    `SafetensorsFile.read: ${shard.path}: the file shrank since it was opened: tensor '${record.name}' is ` +
      `cut off (expected ${record.bytes} bytes, got ${bytes.byteLength}). Open it again once it is complete.`,
    { path: shard.path, tensor: record.name },
  );
}

/** Up to `length` bytes from `position`; fewer only at the end of the file. */
async function readAt(handle: FileHandle, position: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const step = Math.min(length - done, maxTransferBytes);
    const { bytesRead } = await handle.read(bytes, done, step, position + done);
    if (bytesRead === 0) return bytes.subarray(0, done);
    done += bytesRead;
  }
  return bytes;
}

async function resolveFile(path: string): Promise<string> {
  try {
    if (!(await stat(path)).isDirectory()) return path;
    const names = (await readdir(path)).sort();
    for (const name of ['model.safetensors', 'model.safetensors.index.json']) {
      if (names.includes(name)) return join(path, name);
    }
    const indexes = names.filter((name) => name.endsWith('.safetensors.index.json'));
    const files = names.filter((name) => name.endsWith('.safetensors'));
    const candidates = indexes.length > 0 ? indexes : files;
    const [only] = candidates;
    if (only !== undefined && candidates.length === 1) return join(path, only);
    const found = candidates.length === 0 ? 'none' : candidates.join(', ');
    throw new FileError(
      `${who}: ${path} has no model.safetensors and no model.safetensors.index.json (got ${found}). ` +
        'Name the file to open.',
      { path },
    );
  } catch (cause) {
    throw fileErrorFrom(who, path, cause);
  }
}

/** Tensor name to file name. */
async function readIndex(path: string): Promise<ReadonlyMap<string, string>> {
  let root: unknown;
  try {
    root = JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    if (systemCode(cause) !== undefined) throw fileErrorFrom(who, path, cause);
    throw indexError(
      path,
      `is not JSON (${cause instanceof Error ? cause.message : cause})`,
      cause,
    );
  }
  const map = typeof root === 'object' && root !== null && 'weight_map' in root && root.weight_map;
  if (typeof map !== 'object' || map === null) throw indexError(path, 'has no weight_map object');
  const out = new Map<string, string>();
  for (const [name, file] of Object.entries(map)) {
    // A path that leaves the folder is never legal, and would read files it should not.
    if (typeof file !== 'string' || file === '' || /[/\\]|^\.\.?$/.test(file)) {
      throw indexError(
        path,
        `names no plain file for tensor '${name}' (got ${JSON.stringify(file)})`,
      );
    }
    out.set(name, file);
  }
  return out;
}

function checkIndex(
  path: string,
  index: ReadonlyMap<string, string>,
  opened: SafetensorsFile,
): void {
  const folder = dirname(path);
  for (const [name, file] of index) {
    const expected = join(folder, file);
    if (!opened.has(name))
      throw indexError(path, `places tensor '${name}' in ${file}, which has none`);
    const found = opened.info(name).file;
    if (found !== expected) {
      throw indexError(path, `places tensor '${name}' in ${file}, but it is in ${found}`);
    }
  }
  for (const name of opened.names) {
    if (!index.has(name)) throw indexError(path, `does not list tensor '${name}' of its files`);
  }
}

function indexError(path: string, what: string, cause?: unknown): FileError {
  return new FileError(
    `${who}: ${path} ${what}. Download or save the folder again.`,
    { path },
    cause,
  );
}

/**
 * Writes safetensors files: one file, or shards with an index when `maxShardBytes` is given. Tensors
 * are asked for one at a time, in the order in which they lie in the file, so that no more than one of
 * them has to be on the host. Each file appears whole or not at all (writeFileAtomic). A set of shards
 * is several files: write it inside writeFolderAtomic when an older set must survive a failure.
 */

import { basename, dirname, join } from 'node:path';
import { bytesPerElement, type DType, dtypes } from '../../core/dtype.ts';
import { ArgumentError } from '../../core/errors.ts';
import type { HostTensor } from '../../core/host-tensor.ts';
import { formatShape, numElements, type Shape, sameShape } from '../../core/shape.ts';
import { writeFileAtomic } from '../files/atomic.ts';
import { fileErrorFrom } from '../../core/file-error.ts';
import { type FileSystem, nodeFileSystem } from '../files/file-system.ts';
import { encodeHeader, type TensorRecord } from './header.ts';
import { layoutOrder } from './stored-dtype.ts';

/** A tensor to save: at hand, or loaded when its turn comes. */
export type SafetensorsEntry =
  | { readonly name: string; readonly tensor: HostTensor }
  | {
      readonly name: string;
      readonly dtype: DType;
      readonly shape: Shape;
      load(): HostTensor | Promise<HostTensor>;
    };

export interface SaveOptions {
  /** Strings for `__metadata__`; transformers expects `{ format: 'pt' }` (the default). */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Bytes of tensor data that one file may hold; a single larger tensor gets a file of its own. */
  readonly maxShardBytes?: number;
  /** The file operations to use; tests pass one that fails. */
  readonly fs?: FileSystem;
}

export interface SavedFiles {
  /** Every file written, the index last. */
  readonly files: readonly string[];
  /** Bytes of tensor data. */
  readonly totalBytes: number;
}

/**
 * Saves `entries` to `path`, which ends in `.safetensors`. When they do not fit `maxShardBytes`, the
 * files are `<stem>-00001-of-0000N.safetensors` and so on beside `path`, with
 * `<stem>.safetensors.index.json`; shards are filled in the order of `entries`. Files of an earlier
 * save under the same stem that no longer belong are removed. Throws ArgumentError for bad entries and
 * FileError when writing fails.
 */
export async function saveSafetensors(
  path: string,
  entries: Iterable<SafetensorsEntry>,
  options: SaveOptions = {},
): Promise<SavedFiles> {
  const fs = options.fs ?? nodeFileSystem;
  if (!path.endsWith(suffix)) {
    throw new ArgumentError(
      `${who}: the path must end in ${suffix} (got ${path}). Name a file; shards are put beside it.`,
      { path },
    );
  }
  const items = describeEntries(entries);
  const totalBytes = items.reduce((sum, item) => sum + item.bytes, 0);
  const shards = assignShards(items, options.maxShardBytes ?? Number.POSITIVE_INFINITY);
  const folder = dirname(path);
  const stem = basename(path).slice(0, -suffix.length);
  const metadata = options.metadata ?? { format: 'pt' };
  const files: string[] = [];
  const weightMap: [string, string][] = [];
  for (const [i, shard] of shards.entries()) {
    const name =
      shards.length === 1
        ? `${stem}${suffix}`
        : `${stem}-${fiveDigits(i + 1)}-of-${fiveDigits(shards.length)}${suffix}`;
    await writeShard(join(folder, name), shard, metadata, fs);
    files.push(join(folder, name));
    for (const item of shard) weightMap.push([item.name, name]);
  }
  if (shards.length > 1) {
    const index = { metadata: { total_size: totalBytes }, weight_map: sortedRecord(weightMap) };
    const file = join(folder, `${stem}${suffix}.index.json`);
    await writeFileAtomic(file, `${JSON.stringify(index, null, 2)}\n`, { fs, who });
    files.push(file);
  }
  await removeObsolete(folder, stem, new Set(files.map((file) => basename(file))), fs);
  return { files, totalBytes };
}

const who = 'saveSafetensors';
const suffix = '.safetensors';

interface Item {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly bytes: number;
  load(): HostTensor | Promise<HostTensor>;
}

function describeEntries(entries: Iterable<SafetensorsEntry>): Item[] {
  const seen = new Set<string>();
  const items: Item[] = [];
  for (const entry of entries) {
    const { name } = entry;
    if (seen.has(name) || name === '__metadata__') {
      const what = seen.has(name) ? 'is given twice' : 'has a name that the format reserves';
      throw new ArgumentError(`${who}: a tensor ${what} (got '${name}'). Rename or drop it.`, {
        name,
      });
    }
    seen.add(name);
    const { dtype, shape } = 'tensor' in entry ? entry.tensor : entry;
    const load = 'tensor' in entry ? () => entry.tensor : () => entry.load();
    items.push({ name, dtype, shape, bytes: numElements(shape) * bytesPerElement(dtype), load });
  }
  return items;
}

function assignShards(items: readonly Item[], maxBytes: number): Item[][] {
  if (!(maxBytes > 0)) {
    throw new ArgumentError(
      `${who}: maxShardBytes must be positive (got ${maxBytes}). Give a number of bytes, or leave it out.`,
      { maxShardBytes: maxBytes },
    );
  }
  const shards: Item[][] = [];
  let current: Item[] = [];
  let bytes = 0;
  for (const item of items) {
    if (current.length > 0 && bytes + item.bytes > maxBytes) {
      shards.push(current);
      current = [];
      bytes = 0;
    }
    current.push(item);
    bytes += item.bytes;
  }
  shards.push(current);
  return shards;
}

async function writeShard(
  path: string,
  shard: readonly Item[],
  metadata: Readonly<Record<string, string>>,
  fs: FileSystem,
): Promise<void> {
  const order = [...shard].sort(
    (a, b) =>
      layoutOrder.indexOf(a.dtype) - layoutOrder.indexOf(b.dtype) ||
      Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)),
  );
  const records: TensorRecord[] = [];
  let begin = 0;
  for (const { name, dtype, shape, bytes } of order) {
    records.push({ name, stored: dtypes[dtype].safetensors, shape, begin, bytes });
    begin += bytes;
  }
  await writeFileAtomic(
    path,
    async (file) => {
      await file.append(encodeHeader(records, metadata));
      for (const item of order) {
        const tensor = await item.load();
        checkLoaded(item, tensor);
        await file.append(tensor.data);
      }
    },
    { fs, who },
  );
}

function checkLoaded(item: Item, tensor: HostTensor): void {
  const { name, dtype, shape, bytes } = item;
  if (
    tensor.dtype === dtype &&
    sameShape(tensor.shape, shape) &&
    tensor.data.byteLength === bytes
  ) {
    return;
  }
  throw new ArgumentError(
    `${who}: tensor '${name}' is not what was announced (expected ${dtype} ${formatShape(shape)} in ${bytes} bytes, ` +
      `got ${tensor.dtype} ${formatShape(tensor.shape)} in ${tensor.data.byteLength}). ` +
      'Announce the dtype and shape that load() returns.',
    { name },
  );
}

/** Removes the single file, shards and index of an earlier save, which readers would prefer or mix in. */
async function removeObsolete(
  folder: string,
  stem: string,
  keep: ReadonlySet<string>,
  fs: FileSystem,
): Promise<void> {
  try {
    for (const { name } of await fs.list(folder)) {
      if (keep.has(name) || !name.startsWith(stem)) continue;
      const rest = name.slice(stem.length);
      const belongs =
        /^-\d{5}-of-\d{5}\.safetensors$/.test(rest) ||
        rest === suffix ||
        rest === `${suffix}.index.json`;
      if (belongs) await fs.remove(join(folder, name));
    }
  } catch (cause) {
    throw fileErrorFrom(who, folder, cause);
  }
}

function sortedRecord(pairs: readonly [string, string][]): Record<string, string> {
  return Object.fromEntries([...pairs].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function fiveDigits(n: number): string {
  return String(n).padStart(5, '0');
}

/**
 * What a graph holds for its backward: the answer to "where do my activation bytes go" in eager mode, before
 * backward runs. Shared memory counts once. Values that a checkpointed region will compute again hold
 * nothing themselves; the region's inputs are listed under the op `checkpoint`.
 */

import { formatBytes } from '../core/bytes.ts';
import type { DType } from '../core/dtype.ts';
import { CompileError } from '../core/errors.ts';
import { type Shape, formatShape } from '../core/shape.ts';
import { type MemoryCategory, memoryCategories } from '../runtime/allocator.ts';
import { BufferData, type TensorData } from '../tensor/data.ts';
import { type HeldValue, SavedTensor } from '../tensor/saved-tensor.ts';
import type { TapeNode, Tensor } from '../tensor/tensor.ts';

export interface SavedTensorEntry {
  /** Op that saved the value; `checkpoint` for what a region was called with. */
  readonly op: string;
  /** Which of the op's inputs or outputs it is. */
  readonly name: string;
  /** Dotted path of the module; '' outside modules. */
  readonly module: string;
  readonly shape: Shape;
  readonly dtype: DType;
  /** Bytes of memory that no earlier entry holds; 0 for shared memory and for what is not kept. */
  readonly bytes: number;
  /** Entries with equal numbers share memory; undefined when hooks keep something in its place, or nothing. */
  readonly storage: number | undefined;
  /** What the memory is for: parameters are held anyway. */
  readonly category: MemoryCategory | undefined;
}

export interface SavedTensorReport {
  /** In the order in which forward saved them. */
  readonly entries: readonly SavedTensorEntry[];
  /** Bytes held, each piece of memory once. */
  readonly bytes: number;
  readonly byCategory: Readonly<Record<MemoryCategory, number>>;
}

/**
 * Lists what the graph of `outputs` holds. Throws CompileError inside a compiled step, where the plan
 * decides what is held.
 */
export function savedTensors(outputs: Tensor | readonly Tensor[]): SavedTensorReport {
  const roots = (Array.isArray(outputs) ? outputs : [outputs]) as readonly Tensor[];
  const listing = new Listing();
  for (const node of nodesOf(roots)) {
    for (const saved of node.saved.values()) if (saved instanceof SavedTensor) listing.add(saved);
  }
  return listing.report();
}

/** The report as a table, largest entries first, with `limit` rows. */
export function formatSavedTensors(report: SavedTensorReport, limit = 20): string {
  const held = report.entries.filter((entry) => entry.bytes > 0);
  const shown = held.toSorted((a, b) => b.bytes - a.bytes).slice(0, limit);
  const rows = shown.map((entry) => [
    formatBytes(entry.bytes),
    `${entry.op}.${entry.name}`,
    `${entry.dtype}${formatShape(entry.shape)}`,
    entry.category ?? '',
    entry.module,
  ]);
  const table = [['bytes', 'saved by', 'value', 'memory', 'module'], ...rows];
  const widths = table[0]?.map((_, column) =>
    Math.max(...table.map((row) => row[column]?.length ?? 0)),
  );
  const lines = table.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths?.[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
  const more = held.length > shown.length ? [`and ${held.length - shown.length} more`] : [];
  return [...lines, ...more, `${formatBytes(report.bytes)} held for backward`].join('\n');
}

class Listing {
  readonly #entries: SavedTensorEntry[] = [];
  readonly #seen = new Set<HeldValue>();
  readonly #storages = new Map<object, number>();
  readonly #byCategory = Object.fromEntries(
    memoryCategories.map((category) => [category, 0]),
  ) as Record<MemoryCategory, number>;

  add(value: HeldValue): void {
    if (this.#seen.has(value)) return;
    this.#seen.add(value);
    const { context, shape, dtype, heldData } = value;
    const { op, name, module } = context;
    this.#entries.push({ op, name, module, shape, dtype, ...this.#memory(heldData) });
    for (const inner of value.heldByHooks) this.add(inner);
  }

  report(): SavedTensorReport {
    const bytes = this.#entries.reduce((sum, entry) => sum + entry.bytes, 0);
    return { entries: this.#entries, bytes, byCategory: this.#byCategory };
  }

  #memory(data: TensorData | undefined): Pick<SavedTensorEntry, 'bytes' | 'storage' | 'category'> {
    if (!data) return { bytes: 0, storage: undefined, category: undefined };
    if (!(data instanceof BufferData)) {
      throw new CompileError(
        'savedTensors: a compiled step holds what its plan says (got a traced value). Ask outside the step.',
      );
    }
    const { category, bytes } = data.storage.block;
    const known = this.#storages.get(data.root);
    if (known !== undefined) return { bytes: 0, storage: known, category };
    const storage = this.#storages.size;
    this.#storages.set(data.root, storage);
    this.#byCategory[category] += bytes;
    return { bytes, storage, category };
  }
}

/** Every node that the outputs lead to, in the order in which they were made. */
function nodesOf(outputs: readonly Tensor[]): TapeNode[] {
  const found = new Set<TapeNode>();
  const pending = outputs.flatMap((output) => (output.node ? [output.node] : []));
  for (let node = pending.pop(); node; node = pending.pop()) {
    if (found.has(node)) continue;
    found.add(node);
    for (const edge of node.edges) if (edge?.kind === 'node') pending.push(edge.node);
  }
  return [...found].sort((a, b) => a.sequence - b.sequence);
}

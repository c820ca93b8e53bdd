/** What the graph keeps in place of a tensor saved inside a checkpointed region. */

import type { Layout } from '../core/shape.ts';
import type { Aval } from '../ir/aval.ts';
import type { SaveContext } from '../tensor/saved-tensor.ts';
import type { Kept, Source } from './selective/tape.ts';

/** One tensor of what a region returned. */
export interface DiscardedOutput {
  /** Place among the tensors of the result. */
  readonly position: number;
  readonly aval: Aval;
  readonly layout: Layout | undefined;
  readonly source: Source | undefined;
}

/** A view of an output that an op saved. */
export interface OutputPart {
  readonly output: DiscardedOutput;
  readonly layout: Layout | undefined;
}

/** Stands in the graph for a tensor that was not kept, or not by the graph itself. */
export interface Holder {
  readonly index: number;
  readonly aval: Aval;
  readonly context: SaveContext;
  readonly checksum: string | undefined;
  /** Memory that forward saved, by identity only, and its version then. */
  readonly root: object;
  readonly version: number;
  /** The value itself, when the region keeps it. */
  readonly kept: Kept | undefined;
  /** Which op of the region made it, as far as the region's tape knows. */
  readonly source: Source | undefined;
  /** For what was saved outside the region: which output it is, or is a view of. */
  readonly part?: OutputPart;
  alive: boolean;
}

/** What the graph keeps in place of a tensor saved inside a checkpointed region. */

import type { Aval } from '../ir/aval.ts';
import type { SaveContext } from '../tensor/saved-tensor.ts';

/** Stands in the graph for a tensor that was not kept. */
export interface Holder {
  readonly index: number;
  readonly aval: Aval;
  readonly context: SaveContext;
  readonly checksum: string | undefined;
  /** Memory that forward saved, by identity only, and its version then. */
  readonly root: object;
  readonly version: number;
  alive: boolean;
}

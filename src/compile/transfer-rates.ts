/**
 * How fast values are moved out of memory and back. A transfer is charged in full, though it runs beside the
 * computation: the thread that copies takes its time from the cores that compute, and on a machine whose cores are all busy
 * nothing is hidden.
 */

import type { Node } from '../ir/graph.ts';
import { avalBytes } from '../ir/aval.ts';
import type { CostModel } from './cost-model.ts';

/** Bytes a nanosecond (which are GB a second) each way. */
export interface TransferRates {
  readonly store: number;
  readonly fetch: number;
}

/**
 * Of a file in the system's page cache, on the machine of the roofline, which moves 25 bytes a nanosecond: writing takes pages
 * and copies, reading copies.
 */
export const assumedRates: TransferRates = { store: 5, fetch: 10 };

/** Nanoseconds that one transfer takes beside its bytes: handing it to another thread and back. */
const handOverNs = 20_000;

export function storeNs(bytes: number, { store }: TransferRates): number {
  return Math.round(bytes / store) + handOverNs;
}

export function fetchNs(bytes: number, { fetch }: TransferRates): number {
  return Math.round(bytes / fetch) + handOverNs;
}

/** `costOf`, and what transfers cost at these rates. */
export function withTransfers(costOf: CostModel, rates: TransferRates): CostModel {
  return (nodes, reads, writes) => {
    const [node, ...others] = nodes;
    if (!node?.op?.traits.transfer || others.length > 0) return costOf(nodes, reads, writes);
    return { costNs: transferNs(node, rates), hard: false };
  };
}

/** Nanoseconds of a store or fetch node. */
export function transferNs({ op, inputs, outputs }: Node, rates: TransferRates): number {
  const [value] = op?.traits.transfer === 'store' ? inputs : outputs;
  if (!value) return 0;
  const bytes = avalBytes(value.aval);
  return op?.traits.transfer === 'store' ? storeNs(bytes, rates) : fetchNs(bytes, rates);
}

/** The specification of a legal graph, as a check that runs between passes. */

import { invariant, definite } from '../core/errors.ts';
import { formatAval, sameAval } from './aval.ts';
import type { Graph, Node, Value } from './graph.ts';
import { printValue } from './print.ts';

/** Throws InternalError, naming `pass` and the node, unless the graph is well formed. */
export function verifyGraph(graph: Graph, pass: string): void {
  const defined = new Set<Value>();
  /** Values that an in-place op has overwritten, by the node that did it. */
  const overwritten = new Map<Value, Node>();
  graph.nodes.forEach((node, position) => {
    const where = (): string => `after ${pass}: node %${node.id} (${node.op?.name ?? node.kind})`;
    invariant(node.id === position, () => `${where()} is at position ${position}`);
    invariant(
      (node.kind === 'op') === (node.op !== undefined),
      () => `${where()} has a wrong kind`,
    );
    for (const input of node.inputs) {
      invariant(defined.has(input), () => `${where()} reads ${printValue(input)} before it exists`);
      const by = overwritten.get(input);
      invariant(
        !by,
        () => `${where()} reads ${printValue(input)}, which %${by?.id} has overwritten`,
      );
    }
    if (node.op) {
      const avals = node.op.infer(
        node.inputs.map((input) => input.aval),
        node.params,
      );
      invariant(avals.length === node.outputs.length, () => `${where()} has a wrong output count`);
      node.outputs.forEach((output, i) => {
        invariant(
          sameAval(output.aval, definite(avals[i])),
          () =>
            `${where()} says ${formatAval(output.aval)}, infers ${formatAval(definite(avals[i]))}`,
        );
      });
    }
    node.outputs.forEach((output, i) => {
      invariant(output.node === node && output.index === i, () => `${where()} has a stray output`);
      defined.add(output);
    });
    for (const { input } of node.op?.traits.updates ?? []) {
      const value = node.inputs[input];
      if (value && value.node.kind === 'state') overwritten.set(value, node);
    }
  });
  for (const value of graph.results) {
    invariant(
      defined.has(value),
      () => `after ${pass}: result ${printValue(value)} does not exist`,
    );
  }
  for (const { state, value } of graph.updates) {
    invariant(state.node.kind === 'state', () => `after ${pass}: an update of a non-state value`);
    invariant(
      defined.has(value),
      () => `after ${pass}: update ${printValue(value)} does not exist`,
    );
    invariant(sameAval(state.aval, value.aval), () => `after ${pass}: an update changes the aval`);
  }
}

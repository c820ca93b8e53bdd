/**
 * Copies nodes of one graph into another, with a table of what each value has become. Views are not copied
 * by their callers: they are made again over whatever stands for their base when they are read.
 */

import { definite, invariant } from '../core/errors.ts';
import type { GraphBuilder, Node, NodeMeta, Value } from '../ir/graph.ts';

/** Values of the old graph to values of the new one. */
export type ValueTable = Map<Value, Value>;

export class NodeCopier {
  readonly #builder: GraphBuilder;
  /** What stands for each value, unless a table says otherwise. */
  readonly latest: ValueTable = new Map();
  /** Views made so far, by node and by what they look into. */
  readonly #views = new Map<Node, ValueTable>();

  constructor(builder: GraphBuilder) {
    this.#builder = builder;
  }

  /** Appends a copy of `node` that reads `table` first, then `latest`; its outputs go into `table`. */
  copy(node: Node, meta: NodeMeta, table: ValueTable): void {
    const inputs = node.inputs.map((value) => this.find(value, table));
    const outputs = this.#builder.copy(node, inputs, meta);
    node.outputs.forEach((value, i) => table.set(value, definite(outputs[i])));
  }

  /** What stands for `value`. */
  find(value: Value, table: ReadonlyMap<Value, Value> = this.latest): Value {
    const { node } = value;
    if (node.op?.lower.kind !== 'view') {
      const found = table.get(value) ?? this.latest.get(value);
      invariant(found, () => `value %${node.id}.${value.index} is read before it is run`);
      return found;
    }
    const base = this.find(definite(node.inputs[0]), table);
    const made = this.#views.get(node) ?? new Map<Value, Value>();
    this.#views.set(node, made);
    const known = made.get(base);
    if (known) return known;
    const view = definite(this.#builder.copy(node, [base])[0]);
    made.set(base, view);
    return view;
  }
}

/** Text of a graph: one line per node. The print is what snapshot tests compare. */

import { formatAval } from './aval.ts';
import type { Graph, Node, Value } from './graph.ts';
import { paramsKey } from './op.ts';

export interface PrintOptions {
  /** Also show phase, module path and regions. */
  readonly meta?: boolean;
}

export function printGraph(graph: Graph, options: PrintOptions = {}): string {
  const lines = graph.nodes.map((node) => printNode(node, options));
  const results = graph.results.map(printValue).join(', ');
  const updates = graph.updates.map(
    (update) => `${update.state.node.label} := ${printValue(update.value)}`,
  );
  return [...lines, `return ${results}`, ...updates].join('\n');
}

export function printValue(value: Value): string {
  const many = value.node.outputs.length > 1;
  return `%${value.node.id}${many ? `.${value.index}` : ''}`;
}

function printNode(node: Node, options: PrintOptions): string {
  const outputs = node.outputs.map((value) => `${printValue(value)}: ${formatAval(value.aval)}`);
  const inputs = node.inputs.map(printValue).join(', ');
  const params = Object.keys(node.params).length > 0 ? ` ${paramsKey(node.params)}` : '';
  const what = node.op ? `${node.op.name}(${inputs})${params}` : `${node.kind} '${node.label}'`;
  return `${outputs.join(', ')} = ${what}${options.meta ? printMeta(node) : ''}`;
}

function printMeta({ meta }: Node): string {
  const parts: string[] = [meta.phase];
  if (meta.module !== '') parts.push(meta.module);
  if (meta.regions.length > 0) parts.push(`regions ${meta.regions.join('/')}`);
  if (meta.name !== undefined) parts.push(`name ${meta.name}`);
  if (meta.policy !== undefined) parts.push(`policy ${JSON.stringify(meta.policy)}`);
  if (meta.recomputeOf !== undefined) parts.push(`recompute of %${meta.recomputeOf}`);
  return `  # ${parts.join(', ')}`;
}

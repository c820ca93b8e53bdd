/** Reads graphs in the plain JSON form `joint-graph-v1` (docs/internals/planner.md) into the planner's. */

import { ArgumentError } from '../core/errors.ts';
import type { PlanGraph, PlanNode, PlanOutput, ValueRef } from './graph.ts';

/** Ops whose work no fusion hides: matrix products, attention, convolutions. */
const hardOps = /mm|attention|bmm|addmm|conv/;

/**
 * The graph in `json`, a parsed JSON document.
 * @throws ArgumentError naming the first part that is not of the form.
 */
export function readJointGraph(json: unknown): PlanGraph {
  const top = record(json, 'the document');
  const nodes = list(top.nodes, 'nodes').map(readNode);
  return {
    nodes,
    outputs: list(top.outputs, 'outputs').map((value, i) => ref(value, `outputs[${i}]`)),
  };
}

function readNode(json: unknown, index: number): PlanNode {
  const at = `nodes[${index}]`;
  const node = record(json, at);
  const { kind, phase, op, name } = node;
  if (node.id !== undefined && node.id !== index)
    throw wrong(`${at}.id`, node.id, `${index}, its place in the list`);
  if (kind !== 'op' && kind !== 'input' && kind !== 'tangent')
    throw wrong(`${at}.kind`, kind, 'op, input or tangent');
  if (phase !== undefined && phase !== 'fwd' && phase !== 'bwd')
    throw wrong(`${at}.phase`, phase, 'fwd or bwd');
  const opName = typeof op === 'string' ? op : '';
  return {
    kind: kind === 'op' ? 'op' : 'constant',
    phase: phase === 'bwd' ? 'backward' : 'forward',
    inputs: list(node.in ?? [], `${at}.in`).map((value, i) => ref(value, `${at}.in[${i}]`)),
    outputs: list(node.out, `${at}.out`).map((value, i) => readOutput(value, `${at}.out[${i}]`)),
    costNs: number(node.est_ns ?? 0, `${at}.est_ns`),
    hard: hardOps.test(opName),
    label: typeof name === 'string' ? name : opName || `node ${index}`,
    ...(opName === '' ? {} : { op: opName }),
  };
}

function readOutput(json: unknown, at: string): PlanOutput {
  const out = record(json, at);
  const bytes = number(out.bytes, `${at}.bytes`);
  return out.alias === undefined || out.alias === null
    ? { bytes }
    : { bytes, alias: ref(out.alias, `${at}.alias`) };
}

function ref(json: unknown, at: string): ValueRef {
  const [node, output] = list(json, at);
  return [number(node, `${at}[0]`), number(output, `${at}[1]`)];
}

function list(json: unknown, at: string): readonly unknown[] {
  if (Array.isArray(json)) return json;
  throw wrong(at, json, 'a list');
}

function record(json: unknown, at: string): Readonly<Record<string, unknown>> {
  if (typeof json === 'object' && json !== null && !Array.isArray(json))
    return json as Record<string, unknown>;
  throw wrong(at, json, 'an object');
}

function number(json: unknown, at: string): number {
  if (typeof json === 'number') return json;
  throw wrong(at, json, 'a number');
}

function wrong(at: string, got: unknown, legal: string): ArgumentError {
  const text = JSON.stringify(got) ?? 'nothing';
  return new ArgumentError(
    `readJointGraph: ${at} is not as joint-graph-v1 has it (got ${text.length > 60 ? `${text.slice(0, 60)}...` : text}). Give ${legal}.`,
    { at },
  );
}

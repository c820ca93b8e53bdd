/** A mode that writes down every op that runs, with the user's source line. */

import { formatAval } from '../ir/aval.ts';
import type { Aval } from '../ir/aval.ts';
import type { AnyOp, Params } from '../ir/op.ts';
import type { TensorData } from '../tensor/data.ts';
import { PassThroughMode } from '../tensor/pass-through-mode.ts';
import type { Mode } from '../tensor/mode.ts';
import type { Tensor } from '../tensor/tensor.ts';

export interface OpLogEntry {
  readonly op: string;
  readonly inputs: string;
  readonly outputs: string;
  /** file:line:column of the innermost caller outside this library; '' when unknown. */
  readonly source: string;
}

export class OpLogMode extends PassThroughMode {
  readonly entries: OpLogEntry[];

  constructor(inner: Mode, entries: OpLogEntry[]) {
    super(inner);
    this.entries = entries;
  }

  override run(
    op: AnyOp,
    inputs: readonly Tensor[],
    params: Params,
    outputs: readonly Aval[],
  ): readonly TensorData[] {
    this.entries.push({
      op: op.name,
      inputs: inputs.map((input) => formatAval(input.aval)).join(', '),
      outputs: outputs.map(formatAval).join(', '),
      source: callerLine(),
    });
    return super.run(op, inputs, params, outputs);
  }
}

/** Source line of the innermost stack frame that is neither this library's nor the runtime's. */
export function callerLine(): string {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 60;
  const stack = new Error().stack ?? '';
  Error.stackTraceLimit = limit;
  for (const line of stack.split('\n').slice(1)) {
    const place = /\(?((?:file:\/\/)?[^\s()]+:\d+:\d+)\)?$/.exec(line.trim())?.[1];
    if (!place || place.startsWith('node:')) continue;
    if (libraryFolders.some((folder) => place.includes(folder))) continue;
    return place.replace('file://', '');
  }
  return '';
}

/** Two logs next to each other; `!` marks rows that differ. */
export function sideBySide(forward: readonly OpLogEntry[], again: readonly OpLogEntry[]): string {
  const text = (entry: OpLogEntry | undefined): string =>
    entry ? `${entry.op}(${entry.inputs}) -> ${entry.outputs}` : '(nothing)';
  const rows = Math.max(forward.length, again.length);
  const width = Math.max(10, ...forward.map((entry) => text(entry).length));
  const lines = [`  ${'forward'.padEnd(width)} | recompute`];
  for (let i = 0; i < rows; i++) {
    const a = forward[i];
    const b = again[i];
    const mark = text(a) === text(b) ? ' ' : '!';
    const places = new Set([a?.source, b?.source].filter((source) => source));
    const place = [...places].join(' and ');
    lines.push(
      `${mark} ${text(a).padEnd(width)} | ${text(b)}${place === '' ? '' : `  at ${place}`}`,
    );
  }
  return lines.join('\n');
}

const root = new URL('..', import.meta.url).pathname;
const folders = [
  'core',
  'ir',
  'runtime',
  'tensor',
  'ops',
  'autograd',
  'checkpoint',
  'compile',
  'nn',
  // Where the published package has the code that its entries share.
  'chunks',
];
const libraryFolders = folders.map((folder) => `${root}${folder}/`);

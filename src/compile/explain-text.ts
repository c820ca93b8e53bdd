/** A step report as text: equal layers in one row, most bytes first. */

import { formatBytes } from '../core/bytes.ts';
import type { ExplainedValue, StepReport, ValueAction } from './explain.ts';
import { describePeak } from './peak.ts';

/** Values of one op in the same place of several layers, treated alike. */
export interface ValueGroup {
  readonly example: ExplainedValue;
  /** Module path with `*` for the numbers in which the members differ. */
  readonly module: string;
  readonly count: number;
  readonly bytes: number;
  readonly costNs: number;
}

/** Folds values that differ in nothing but the number of their layer; most bytes first. */
export function groupValues(values: readonly ExplainedValue[]): ValueGroup[] {
  const groups = Map.groupBy(values, (value) =>
    [
      value.action,
      value.repeats,
      pattern(value.module),
      value.op,
      value.name ?? '',
      value.aval,
      value.reason,
    ].join('|'),
  );
  return [...groups.values()]
    .flatMap((members): ValueGroup[] => {
      const [example] = members;
      if (!example) return [];
      const count = members.length;
      const same = new Set(members.map((value) => value.module)).size === 1;
      return [
        {
          example,
          module: same ? example.module : pattern(example.module),
          count,
          bytes: count * example.bytes,
          costNs: count * example.costNs * Math.max(1, example.repeats),
        },
      ];
    })
    .toSorted((a, b) => b.bytes - a.bytes || (a.module < b.module ? -1 : 1));
}

function pattern(module: string): string {
  return module.replace(/(^|\.)\d+(?=\.|$)/g, '$1*');
}

/** The report as lines. `most`: rows of values shown of each kind; the rest is summed up. */
export function formatStepReport(report: StepReport, most = 24): string {
  const { peakBytes, basePeakBytes, budgetBytes, extraTime, extraTimeBound } = report;
  const lines = [`step memory ${formatBytes(peakBytes)}`];
  if (basePeakBytes !== undefined) {
    const share = ((100 * peakBytes) / basePeakBytes).toFixed(0);
    lines.push(`without recomputing ${formatBytes(basePeakBytes)} (this is ${share} %)`);
  }
  if (budgetBytes !== undefined) lines.push(`budget ${formatBytes(budgetBytes)}`);
  if (extraTime !== undefined) {
    const bound =
      extraTimeBound === undefined
        ? ''
        : `; no plan in this memory adds less than ${percent(extraTimeBound)}`;
    const asides = report.values.some(isAside);
    const what = asides ? 'recomputing and moving' : 'recomputing';
    lines.push(`time added by ${what}: ${percent(extraTime)} (estimated${bound})`);
  }
  lines.push(`peak ${describePeak(report.peak)}`);
  for (const action of ['saved', 'recomputed', 'offloaded', 'compressed'] as const) {
    const groups = groupValues(report.values.filter((value) => value.action === action));
    if (groups.length === 0 && action !== 'saved' && action !== 'recomputed') continue;
    lines.push('', ...tableOf(action, groups, most));
  }
  return lines.join('\n');
}

const costHeads: Readonly<Record<ValueAction, string>> = {
  saved: 'to compute',
  recomputed: 'computing',
  offloaded: 'moving',
  compressed: 'converting',
};

function isAside({ action }: ExplainedValue): boolean {
  return action === 'offloaded' || action === 'compressed';
}

function tableOf(action: ValueAction, groups: readonly ValueGroup[], most: number): string[] {
  const total = groups.reduce((sum, group) => sum + group.bytes, 0);
  const title = `${action}: ${formatBytes(total)} in ${groups.reduce((sum, group) => sum + group.count, 0)} values`;
  if (groups.length === 0) return [`${action}: nothing`];
  const rows = groups.slice(0, most).map(({ example, module, count, bytes, costNs }) => {
    const named = example.name === undefined ? example.op : `${example.op} '${example.name}'`;
    const what = example.phase === 'forward' ? named : `${named} of ${example.phase}`;
    const times = example.repeats > 1 ? ` x${example.repeats}` : '';
    return [
      formatBytes(bytes),
      `${count} x`,
      `${(costNs / 1e6).toFixed(2)} ms`,
      `${what}${times}`,
      module,
      example.aval,
      example.reason,
    ];
  });
  const head = ['bytes', '', costHeads[action], 'op', 'module', 'value', 'why'];
  const rest = groups.slice(most);
  const more =
    rest.length === 0
      ? []
      : [
          `  and ${formatBytes(rest.reduce((sum, group) => sum + group.bytes, 0))} in ${rest.length} more rows`,
        ];
  return [title, ...alignColumns([head, ...rows]), ...more];
}

/** The first three columns are flush right. */
function alignColumns(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, i) =>
    Math.max(...rows.map((row) => (row[i] ?? '').length)),
  );
  return rows.map((row) =>
    `  ${row.map((cell, i) => (i < 3 ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0))).join('  ')}`.trimEnd(),
  );
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

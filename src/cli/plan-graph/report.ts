/** What a person wants to know of a plan or a frontier: memory, time, what runs again, what fills the peak. */

import { formatBytes } from '../../core/bytes.ts';
import type { Plan, PlanGraph, ValueRef } from '../../plan/graph.ts';
import type { Frontier } from '../../plan/plan.ts';
import { simulate } from '../../plan/simulate.ts';

const listed = 8;

/** Lines of text. `seconds`: what planning took. */
export function describePlan(
  graph: PlanGraph,
  plan: Plan,
  basePeak: number,
  budget: number,
  seconds: number,
): string {
  const { peakBytes, baseNs, extraNs, extraHardNs, lowerBoundNs, gap, counters } = plan;
  const lines = [
    `${graph.nodes.length} nodes, ${counters.storages} values with memory; a step computes ${formatTime(baseNs)}`,
    '',
    ...table([
      ['', 'without a budget', 'this plan', ''],
      ['peak', formatBytes(basePeak), formatBytes(peakBytes), share(peakBytes, basePeak)],
      ['budget', '', formatBytes(budget), share(budget, basePeak)],
      ['time', formatTime(baseNs), formatTime(baseNs + extraNs), added(extraNs, baseNs)],
      ['in matmul and attention', '', formatTime(extraHardNs), added(extraHardNs, baseNs)],
    ]),
    '',
    `Proven: no plan in this budget adds less than ${added(lowerBoundNs, baseNs)}; this one is within ${percent(gap)} of that.`,
  ];
  const again = runsAgain(graph, plan);
  if (again.length > 0) {
    lines.push('', 'Computed again:');
    lines.push(
      ...table([
        ['op', 'times', 'time', 'of the step'],
        ...again
          .slice(0, listed)
          .map(({ op, times, ns }) => [op, String(times), formatTime(ns), added(ns, baseNs)]),
      ]),
    );
    if (again.length > listed) lines.push(`  and ${again.length - listed} ops more`);
  }
  const { aliveAtPeak, peakAt } = simulate(graph, plan.schedule);
  const at = plan.schedule[peakAt];
  if (at) {
    lines.push('', `Alive at the peak, while ${labelOf(graph, [at[1], 0])} runs:`);
    const values = aliveAtPeak.slice(0, listed);
    lines.push(
      ...table(values.map(({ value, bytes }) => [labelOf(graph, value), formatBytes(bytes)])),
    );
    if (aliveAtPeak.length > listed) lines.push(`  and ${aliveAtPeak.length - listed} values more`);
  }
  lines.push('', `Planned in ${seconds.toFixed(2)} s.`);
  return lines.join('\n');
}

/** One row a budget. */
export function describeFrontier(graph: PlanGraph, frontier: Frontier, seconds: number): string {
  const rows = frontier.points.map(({ budgetBytes, plan }) => {
    const budget = [formatBytes(budgetBytes), share(budgetBytes, frontier.basePeakBytes)];
    if (!plan) return [...budget, 'infeasible'];
    const { peakBytes, baseNs, extraNs, extraHardNs, lowerBoundNs, gap } = plan;
    return [
      ...budget,
      formatBytes(peakBytes),
      added(extraNs, baseNs),
      added(extraHardNs, baseNs),
      added(lowerBoundNs, baseNs),
      percent(gap),
    ];
  });
  const head = ['budget', '', 'peak', 'time', 'matmul, attention', 'proven', 'gap'];
  return [
    `${graph.nodes.length} nodes; ${formatBytes(frontier.basePeakBytes)} without a budget`,
    '',
    ...table([head, ...rows]),
    '',
    `Planned in ${seconds.toFixed(2)} s.`,
  ].join('\n');
}

interface Again {
  readonly op: string;
  times: number;
  ns: number;
}

/** Further runs, grouped by op, dearest first. */
function runsAgain(graph: PlanGraph, plan: Plan): Again[] {
  const ran = new Set<number>();
  const groups = new Map<string, Again>();
  for (const [what, index] of plan.schedule) {
    if (what === 'free') continue;
    const node = graph.nodes[index];
    if (node && ran.has(index)) {
      const op = node.op ?? node.label;
      const group = groups.get(op) ?? { op, times: 0, ns: 0 };
      groups.set(op, group);
      group.times++;
      group.ns += node.costNs;
    }
    ran.add(index);
  }
  return [...groups.values()].sort((a, b) => b.ns - a.ns || (a.op < b.op ? -1 : 1));
}

function labelOf(graph: PlanGraph, [node, output]: ValueRef): string {
  const { label, op, module } = graph.nodes[node] ?? { label: '' };
  const name = `${label}${output > 0 ? `:${output}` : ''}`;
  return `${module === undefined ? '' : `${module} `}${name}${op === undefined || op === label ? '' : ` (${op})`}`;
}

/** Columns two blanks apart; all but the first are set to the right. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length);
    });
  }
  return rows.map((row) => {
    const cells = row.map((cell, i) =>
      i === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[i] ?? 0),
    );
    return `  ${cells.join('  ')}`.trimEnd();
  });
}

function formatTime(ns: number): string {
  if (ns < 1e4) return `${ns.toFixed(0)} ns`;
  return ns < 1e7 ? `${(ns / 1e3).toFixed(1)} us` : `${(ns / 1e6).toFixed(1)} ms`;
}

function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(2)} %`;
}

function share(part: number, whole: number): string {
  return whole > 0 ? `${((100 * part) / whole).toFixed(1)} %` : '';
}

function added(ns: number, baseNs: number): string {
  return baseNs > 0 ? `+${percent(ns / baseNs)}` : '';
}

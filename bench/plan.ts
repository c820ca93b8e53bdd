/**
 * Sweeps the planner over the graphs of a folder (and the folders in it) and prints tables.
 *
 *   node bench/plan.ts FOLDER [NAME]
 *
 * NAME picks graphs whose file name has it. Read are joint-graph-v1 files (plain or gzip), `x.pytorch-partition.json.gz`
 * beside one (PyTorch's partition of the same graph), node-link graphs of Checkmate and Moccasin, and
 * `reference-results.json` beside their folder. Every schedule is replayed; what is wrong is named in the last column.
 */

import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { formatBytes } from '../src/core/bytes.ts';
import { readJointGraph } from '../src/plan/joint-graph.ts';
import { Planner } from '../src/plan/planner.ts';
import { isNodeLink, readNodeLink } from './plan/node-link.ts';
import { readPartition } from './plan/partition.ts';
import { type Point, planOne, sweep } from './plan/sweep.ts';

interface Reference {
  readonly graph: string;
  readonly budget: number;
  readonly budget_ratio: number;
  readonly status?: string;
  readonly tdi_pct: number | null;
}

/** What counts of the time of ops that fuse, for plans that are compared by matmul and attention alone. */
const hardShare = 0.02;
const lossBytes = 4;

const [folder, pick = ''] = process.argv.slice(2);
if (folder === undefined) {
  console.error('usage: node bench/plan.ts FOLDER [NAME]');
  process.exit(2);
}
const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  .filter((file) => /\.json(\.gz)?$/.test(file) && file.includes(pick))
  .sort();
for (const file of files) {
  const name = path.basename(file);
  // What is called test is the forward alone: it has nothing to keep.
  if (/pytorch-partition|reference-results|_test_nx/.test(name)) continue;
  const json = read(path.join(folder, file));
  if (isNodeLink(json)) sweepNodeLink(name, path.join(folder, path.dirname(file)), json);
  else sweepJoint(name, path.join(folder, file), json);
}

function sweepJoint(name: string, file: string, json: unknown): void {
  const graph = readJointGraph(json);
  const result = sweep(graph);
  const { basePeak, baseNs, smallestBytes, provenBytes } = result;
  console.log(`\n## ${name}: ${graph.nodes.length} nodes, ${formatBytes(basePeak)}`);
  console.log(
    `smallest ${share(smallestBytes, basePeak)}, proven ${share(provenBytes, basePeak)}; ` +
      `one plan ${result.onePlanSeconds.toFixed(2)} s, frontier of 20 ${result.frontierSeconds.toFixed(2)} s\n`,
  );
  print(['budget', 'peak', 'extra', 'hard', 'proven', 'gap', 'seconds', '']);
  for (const point of result.points) print(row(point, basePeak));
  const partition = file.replace(/\.json(\.gz)?$/, '.pytorch-partition.json.gz');
  if (!existsSync(partition)) return;
  const outputs = Number((json as { num_fwd_outputs?: number }).num_fwd_outputs ?? 1);
  const planners = { all: new Planner(graph), hard: new Planner(graph, { softShare: hardShare }) };
  console.log('\nBeside PyTorch, at its peak:\n');
  print([
    'setting',
    'peak',
    'all: PyTorch',
    'plan',
    'hard plan',
    'hard: PyTorch',
    'plan',
    'hard plan',
    '',
  ]);
  type Partition = Parameters<typeof readPartition>[0];
  for (const theirs of readPartition(read(partition) as Partition, graph, outputs)) {
    // PyTorch's figure leaves out the loss, a result of four bytes.
    const budget = theirs.peakBytes + lossBytes;
    const all = planOne(planners.all, graph, budget);
    const hard = planOne(planners.hard, graph, budget);
    const faults = [all.fault, hard.fault];
    if ((all.plan?.extraNs ?? Infinity) > theirs.extraNs) faults.push('above PyTorch');
    if ((hard.plan?.extraNs ?? Infinity) > theirs.extraNs) faults.push('hard plan above PyTorch');
    if ((hard.plan?.extraHardNs ?? Infinity) > theirs.extraHardNs + 1)
      faults.push('hard above PyTorch');
    print([
      String(theirs.setting),
      share(budget, basePeak),
      share(theirs.extraNs, baseNs),
      share(all.plan?.extraNs, baseNs),
      share(hard.plan?.extraNs, baseNs),
      share(theirs.extraHardNs, baseNs),
      share(all.plan?.extraHardNs, baseNs),
      share(hard.plan?.extraHardNs, baseNs),
      faults.filter((fault) => fault !== '').join(', '),
    ]);
  }
}

function sweepNodeLink(name: string, at: string, json: Parameters<typeof readNodeLink>[0]): void {
  const graph = readNodeLink(json);
  const planner = new Planner(graph);
  const basePeak = planner.base.peak;
  console.log(`\n## ${name}: ${graph.nodes.length} nodes\n`);
  print(['budget', 'peak', 'extra', 'hard', 'proven', 'gap', 'seconds', 'proved optimum']);
  const list = path.join(at, '..', 'reference-results.json');
  const known = existsSync(list) ? (read(list) as Reference[]) : [];
  const budgets = new Map<number, string>();
  for (const { graph: of, budget, status, tdi_pct: percent } of known) {
    if (of !== name || budgets.get(budget)) continue;
    budgets.set(budget, status === 'OPTIMAL' ? `${percent?.toFixed(4)} %` : '');
  }
  if (budgets.size === 0) for (const share of [0.9, 0.8]) budgets.set(basePeak * share, '');
  for (const [budget, optimum] of [...budgets].sort(([a], [b]) => b - a)) {
    const point = planOne(planner, graph, budget);
    print([...row(point, basePeak).slice(0, -1), `${optimum} ${point.fault}`]);
  }
}

function row({ budgetBytes, plan, seconds, fault }: Point, basePeak: number): string[] {
  const budget = share(budgetBytes, basePeak);
  if (!plan) return [budget, 'infeasible', '', '', '', '', seconds.toFixed(2), fault];
  return [
    budget,
    share(plan.peakBytes, basePeak),
    share(plan.extraNs, plan.baseNs, 4),
    share(plan.extraHardNs, plan.baseNs),
    share(plan.lowerBoundNs, plan.baseNs),
    share(plan.gap, 1),
    seconds.toFixed(2),
    fault,
  ];
}

function read(file: string): unknown {
  const raw = readFileSync(file);
  return JSON.parse((raw[0] === 0x1f ? gunzipSync(raw) : raw).toString());
}

function share(part: number | undefined, whole: number, digits = 2): string {
  return part === undefined ? '-' : `${((100 * part) / whole).toFixed(digits)} %`;
}

function print(cells: readonly string[]): void {
  console.log(`| ${cells.map((cell) => cell.padStart(9)).join(' | ')} |`);
}

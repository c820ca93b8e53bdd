/** What the project set itself to reach, and whether this run reached it. */

import type { EnvironmentName } from '../contestants.ts';
import type { Checkpointing } from '../driver/protocol.ts';
import { layouts } from '../sections/matmul.ts';
import type { EntryResult, TrainingResult } from '../sections/training.ts';
import {
  type Figure,
  findEntry,
  lossDifference,
  relativeDifference,
  stepTime,
  timeRatio,
} from './comparison.ts';
import type { Results } from './results.ts';

export type Verdict = 'reached' | 'not reached' | 'disturbed' | 'not measured';

export interface Target {
  readonly what: string;
  /** Such as `>= 1.2`. */
  readonly wanted: string;
  /** What was measured, with its spread. */
  readonly got: string;
  readonly verdict: Verdict;
}

const mebibyte = 2 ** 20;

/** jax-js 0.1 on Node 24 with 2 worker threads on this step, the fastest of the JavaScript peers. */
const jaxJsTokensPerSecond = 773;

type Execution = 'eager' | 'compiled';

/** Ways that keep about half of the memory. */
const betweenWays: readonly Checkpointing[] = ['op', 'budget:50%', 'budget:50%+bf16'];

export function judge(results: Results): Target[] {
  const config = (name: string): TrainingResult | undefined =>
    results.training.find((training) => training.config.name === name);
  const small = config('S');
  const large = config('L');
  const both = [
    ['S', small],
    ['L', large],
  ] as const;
  return [
    ...both.flatMap(([name, training]) => [
      speed(`${name}: compiled, BLAS, over PyTorch eager`, training, 'compiled', 'eager', 1.2),
      speed(`${name}: compiled, BLAS, over torch.compile`, training, 'compiled', 'compiled', 1.1),
      speed(
        `${name}: compiled, generated matmul, over PyTorch eager`,
        training,
        'compiled',
        'eager',
        0.6,
        'retune+wasm',
      ),
      speed(`${name}: eager, BLAS, over PyTorch eager`, training, 'eager', 'eager', 0.9),
    ]),
    againstJaxJs(small),
    ...layouts.map(({ name }) => matmulRate(results, name)),
    memory('L: step memory, compiled, none', large, 'compiled', 'none', 282),
    memory('L: step memory, compiled, full', large, 'compiled', 'full', 79),
    memory('L: step memory, eager, none', large, 'eager', 'none', 390),
    memory('L: step memory, eager, full', large, 'eager', 'full', 79),
    ...both.flatMap(([name, training]) => [
      overhead(`${name}: time of full over none, compiled`, training, 'compiled', 'full', 1.17),
      overhead(`${name}: time of full over none, eager`, training, 'eager', 'full', 1.17),
    ]),
    ...betweenWays.map((way) =>
      overhead(`L: time of ${way} over none, compiled`, large, 'compiled', way, 1.03),
    ),
    ...results.training.map(lossesAgree),
    ...knownLosses(small),
    plansHold(results),
    ...startUp(results),
  ];
}

function entry(
  training: TrainingResult | undefined,
  environment: EnvironmentName,
  execution: Execution,
  checkpointing: Checkpointing = 'none',
): EntryResult | undefined {
  return findEntry(training, environment, { compiled: execution === 'compiled', checkpointing });
}

function speed(
  what: string,
  training: TrainingResult | undefined,
  own: Execution,
  other: Execution,
  least: number,
  environment: EnvironmentName = 'retune+blas',
): Target {
  const ours = entry(training, environment, own);
  const theirs = entry(training, 'torch', other);
  const ratio = ours && theirs && timeRatio(theirs, ours);
  return fromFigure(`tokens/s, ${what}`, 'at least', least, ratio);
}

function againstJaxJs(small: TrainingResult | undefined): Target {
  const ours = entry(small, 'retune+wasm', 'compiled');
  const time = ours && stepTime(ours);
  const rate = (ms: number): number =>
    ((small?.tokensPerStep ?? 0) / ms) * (1000 / jaxJsTokensPerSecond);
  const ratio = time && {
    ...time,
    min: rate(time.max),
    median: rate(time.median),
    max: rate(time.min),
  };
  const what = `tokens/s, S: compiled, generated matmul, over jax-js (${jaxJsTokensPerSecond}, recorded earlier)`;
  return fromFigure(what, 'at least', 2.5, ratio);
}

function matmulRate({ matmul }: Results, layout: string): Target {
  const row = matmul.find(
    (one) => one.environment === 'retune+wasm' && one.layout === layout && one.threads > 1,
  );
  const rate = row?.rate && { ...row.rate, disturbed: row.disturbed };
  const what = `generated matmul, 1024^3, ${layout}, ${row?.threads ?? 2} threads, GFLOP/s`;
  return fromFigure(what, 'at least', 60, rate);
}

function memory(
  what: string,
  training: TrainingResult | undefined,
  execution: Execution,
  checkpointing: 'none' | 'full',
  most: number,
): Target {
  const bytes = entry(training, 'retune+blas', execution, checkpointing)?.memory?.peakBytes;
  if (bytes === undefined) return unmeasured(`${what}, MiB`, `<= ${most}`);
  const mib = bytes / mebibyte;
  return exact(`${what}, MiB`, `<= ${most}`, mib.toFixed(1), mib <= most);
}

function overhead(
  what: string,
  training: TrainingResult | undefined,
  execution: Execution,
  way: Checkpointing,
  most: number,
): Target {
  const none = entry(training, 'retune+blas', execution);
  const other = entry(training, 'retune+blas', execution, way);
  return fromFigure(what, 'at most', most, none && other && timeRatio(other, none));
}

function lossesAgree(training: TrainingResult): Target {
  const what = `${training.config.name}: losses of the first steps, all against PyTorch eager, relative`;
  const reference = entry(training, 'torch', 'eager');
  const differences = training.entries.flatMap((one) => {
    const difference = reference && lossDifference(one, reference);
    return one === reference || difference === undefined ? [] : [difference];
  });
  if (differences.length === 0) return unmeasured(what, '<= 1e-4');
  const worst = Math.max(...differences);
  return exact(what, '<= 1e-4', worst.toExponential(1), worst <= 1e-4);
}

function knownLosses(small: TrainingResult | undefined): Target[] {
  const known = small?.config.knownLosses;
  const differences = small?.entries.flatMap(({ losses }) =>
    known && losses ? [relativeDifference(losses, known)] : [],
  );
  const what = `S: losses against ${known?.join(' ')}, relative`;
  if (!known) return [];
  if (!differences || differences.length === 0) return [unmeasured(what, '<= 1e-4')];
  const worst = Math.max(...differences);
  return [exact(what, '<= 1e-4', worst.toExponential(1), worst <= 1e-4)];
}

function plansHold({ training }: Results): Target {
  const what = 'planned peak equals measured peak, compiled, to the byte';
  const measured = training
    .flatMap(({ entries }) => entries)
    .flatMap(({ memory: found }) => (found?.plannedBytes === undefined ? [] : [found]));
  if (measured.length === 0) return unmeasured(what, 'all');
  const equal = measured.filter(({ peakBytes, plannedBytes }) => peakBytes === plannedBytes).length;
  return exact(what, 'all', `${equal} of ${measured.length}`, equal === measured.length);
}

function startUp({ startup }: Results): Target[] {
  const limits = [
    { prefix: 'retune --help', most: 0.3 },
    { prefix: 'import of the library', most: 0.2 },
  ];
  return limits.flatMap(({ prefix, most }) => {
    const all = startup.filter(({ what }) => what.startsWith(prefix));
    // What users import is dist; the sources are judged only where there is none.
    const rows = all.some(isBuilt) ? all.filter(isBuilt) : all;
    if (rows.length === 0) return [unmeasured(`${prefix}, seconds`, `<= ${most}`)];
    return rows.map(({ what, seconds }) =>
      seconds
        ? exact(`${what}, seconds`, `<= ${most}`, spreadText(seconds), seconds.median <= most)
        : unmeasured(`${what}, seconds`, `<= ${most}`),
    );
  });
}

function isBuilt({ what }: { readonly what: string }): boolean {
  return what.includes('dist');
}

function fromFigure(
  what: string,
  side: 'at least' | 'at most',
  bound: number,
  figure: Figure | undefined,
): Target {
  const wanted = `${side === 'at least' ? '>=' : '<='} ${bound}`;
  if (!figure) return unmeasured(what, wanted);
  const good = side === 'at least' ? figure.median >= bound : figure.median <= bound;
  const target = exact(what, wanted, spreadText(figure), good);
  return figure.disturbed ? { ...target, verdict: 'disturbed' } : target;
}

function exact(what: string, wanted: string, got: string, good: boolean): Target {
  return { what, wanted, got, verdict: good ? 'reached' : 'not reached' };
}

function unmeasured(what: string, wanted: string): Target {
  return { what, wanted, got: '', verdict: 'not measured' };
}

/** `1.21 (1.18 to 1.30)` */
export function spreadText({
  min,
  median,
  max,
}: {
  min: number;
  median: number;
  max: number;
}): string {
  const digits = median >= 100 ? 0 : median >= 10 ? 1 : 2;
  const [low, middle, high] = [min, median, max].map((value) => value.toFixed(digits));
  return low === high ? `${middle}` : `${middle} (${low} to ${high})`;
}

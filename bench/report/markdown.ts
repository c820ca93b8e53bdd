/** The report for people. */

import type { EntryResult, TrainingResult } from '../sections/training.ts';
import {
  discardedTurns,
  type Figure,
  findEntry,
  lossDifference,
  stepTime,
  timeRatio,
} from './comparison.ts';
import type { Results } from './results.ts';
import { judge, spreadText } from './targets.ts';

export function renderReport(results: Results): string {
  const parts = [
    `# Benchmark ${results.name}`,
    about(results),
    targets(results),
    ...results.training.map(training),
    matmul(results),
    startup(results),
    ops(results),
  ];
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`;
}

function about(results: Results): string {
  const { machine, threads, rounds, maxOtherCores } = results;
  const software = Object.values(results.software).map((found) => {
    const { name = '', version = results.retune, ...rest } = found;
    const text = Object.entries(rest).map(([key, value]) => `${key}: ${value}`);
    return `* ${name} ${version}, ${text.join('; ')}`;
  });
  const lines = [
    `* Machine: ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.system}, kernel ${machine.kernel}`,
    `* Node ${machine.node} (V8 ${machine.v8})`,
    ...software,
    ...results.absent.map(({ environment, reason }) => `* Not there: ${environment} (${reason})`),
    `* ${threads} threads each, ${rounds} rounds, ${results.minutes.toFixed(0)} minutes`,
    `* Command: \`${results.command}\``,
    '',
    'float32 throughout. Contestants are processes that take turns; a turn during which other',
    `processes used more than ${maxOtherCores} cores is discarded and repeated. Times are medians over rounds,`,
    'with minimum and maximum; ratios are taken round by round. A dagger marks figures for which only',
    'disturbed turns were there.',
  ];
  if (results.quick)
    lines.push('', '**A quick run: one short round each. The times mean little.**');
  return lines.join('\n');
}

function targets(results: Results): string {
  const rows = judge(results).map(({ what, wanted, got, verdict }) => [what, wanted, got, verdict]);
  return `## Targets\n\n${table(['what', 'wanted', 'got', ''], rows)}`;
}

function training(result: TrainingResult): string {
  const { config, parameters } = result;
  const reference = findEntry(result, 'torch', { compiled: false, checkpointing: 'none' });
  const rows = result.entries.map((one) => entryRow(one, result, reference));
  const head = [
    'environment/execution/checkpointing',
    'ms a step',
    'tokens/s',
    'tokens/s over PyTorch eager/none',
    'over PyTorch, same row',
    'turns (discarded)',
    'step MiB',
    'planned MiB',
    'first step s',
    'loss difference',
  ];
  const size = `${config.layers} layers, hidden ${config.hidden}, ${config.heads} heads (${config.kvHeads} of keys), feed-forward ${config.intermediate}, vocabulary ${config.vocab}`;
  const work = `${config.batch} x ${config.sequence} tokens, ${(parameters / 1e6).toFixed(2)} M parameters, ${(result.flopsPerStep / 1e9).toFixed(0)} GFLOP of products a step`;
  return [
    `## Training step ${config.name}: ${config.about}`,
    `${size}; ${work}.`,
    table(head, rows),
    ...failedTurns(result),
    'Time of checkpointing every layer over none:',
    table(['environment', 'execution', 'full over none'], overheadRows(result)),
    'Losses of the first steps:',
    table(
      [
        '',
        ...(result.entries.find(({ losses }) => losses)?.losses ?? []).map((_, i) => `${i + 1}`),
      ],
      result.entries.flatMap(({ entry, losses }) =>
        losses ? [[entry.name, ...losses.map((loss) => loss.toFixed(5))]] : [],
      ),
    ),
  ].join('\n\n');
}

function entryRow(
  one: EntryResult,
  result: TrainingResult,
  reference: EntryResult | undefined,
): string[] {
  const failed = one.failedTurns?.length ?? 0;
  if (one.failure !== undefined) return [one.entry.name, `failed: ${one.failure}`];
  const time = stepTime(one);
  const ratio = reference && reference !== one ? timeRatio(reference, one) : undefined;
  const twin = findEntry(result, 'torch', one.entry.variant);
  const twinRatio = twin && twin !== one ? timeRatio(twin, one) : undefined;
  const difference = reference && reference !== one ? lossDifference(one, reference) : undefined;
  const { peakBytes, plannedBytes } = one.memory ?? {};
  return [
    one.entry.name,
    figureText(time),
    time ? (result.tokensPerStep / (time.median / 1000)).toFixed(0) : '',
    figureText(ratio),
    figureText(twinRatio),
    `${one.turns?.length ?? 0} (${discardedTurns(one)})${failed > 0 ? ` and ${failed} failed` : ''}`,
    mebibytes(peakBytes),
    plannedBytes === undefined ? '' : mebibytes(plannedBytes),
    one.firstStepSeconds?.toFixed(2) ?? '',
    difference?.toExponential(1) ?? '',
  ];
}

function failedTurns({ entries }: TrainingResult): string[] {
  const lines = entries.flatMap(({ entry, failedTurns: failed = [] }) =>
    failed.map(({ round, reason }) => `* ${entry.name}, round ${round + 1}: ${reason}`),
  );
  return lines.length === 0 ? [] : [`Failed turns:\n\n${lines.join('\n')}`];
}

function overheadRows(result: TrainingResult): string[][] {
  return result.entries.flatMap((full) => {
    const { environment, variant } = full.entry;
    if (variant.checkpointing !== 'full') return [];
    const none = findEntry(result, environment, { ...variant, checkpointing: 'none' });
    const ratio = none && timeRatio(full, none);
    return [[environment, variant.compiled ? 'compiled' : 'eager', figureText(ratio)]];
  });
}

function matmul({ matmul: rows }: Results): string {
  if (rows.length === 0) return '';
  const body = rows.map(({ environment, threads, layout, rate, disturbed, discarded, failure }) => [
    environment,
    String(threads),
    layout,
    rate || !failure ? figureText(rate && { ...rate, disturbed }) : `failed: ${failure}`,
    String(discarded),
  ]);
  const head = ['', 'threads', 'product', 'GFLOP/s', 'discarded turns'];
  return `## Matrix products, 1024 x 1024 x 1024\n\n${table(head, body)}`;
}

function startup({ startup: rows }: Results): string {
  if (rows.length === 0) return '';
  const body = rows.map(({ what, seconds, failure }) => [
    what,
    seconds ? spreadText(seconds) : `failed: ${failure}`,
  ]);
  return `## Start-up, seconds\n\n${table(['', 'seconds'], body)}`;
}

function ops({ ops: found }: Results): string {
  if (!found) return '';
  const body = found.rows.map(({ op, kind, inputs, ms, bytes, flops }) => [
    op,
    kind,
    inputs,
    ms.toFixed(3),
    (bytes / ms / 1e6).toFixed(1),
    flops > 0 ? (flops / ms / 1e6).toFixed(1) : '',
  ]);
  const byReason = Map.groupBy(found.skipped, ({ reason }) => reason);
  const skipped = [...byReason].map(
    ([reason, list]) => `* ${reason}: ${list.map(({ op }) => `\`${op}\``).join(', ')}`,
  );
  return [
    '## Ops, each alone, eager, on its enlarged sample',
    table(['op', 'kind', 'inputs', 'ms', 'GB/s', 'GFLOP/s'], body),
    skipped.length === 0 ? '' : `Not timed:\n\n${skipped.join('\n')}`,
  ].join('\n\n');
}

function figureText(figure: Figure | undefined): string {
  if (!figure) return '';
  return `${spreadText(figure)}${figure.disturbed ? ' \u2020' : ''}`;
}

function mebibytes(bytes: number | undefined): string {
  return bytes === undefined ? '' : (bytes / 2 ** 20).toFixed(1);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${head.map((_, i) => (cells[i] ?? '').replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), `|${head.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n');
}

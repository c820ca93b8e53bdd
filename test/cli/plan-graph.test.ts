import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { Wait } from '../../src/cli/wait.ts';
import { simulate } from '../../src/plan/simulate.ts';
import { workFolder } from '../recipes/support.ts';
import { tracedFile, tracedGraph } from '../support/plan-graphs.ts';
import { retune } from '../support/processes.ts';

const file = fileURLToPath(tracedFile('llama-tiny-2L-aten'));
const graph = tracedGraph('llama-tiny-2L-aten');
const basePeak = 19_310_596;

test('--json prints a schedule that keeps the budget, the same for plain and compressed files', async () => {
  await using work = await workFolder();
  await writeFile(join(work.path, 'plain.json'), gunzipSync(readFileSync(file)));
  const [packed, plain] = await Promise.all([
    retune(['plan-graph', file, '--budget', '45%', '--json'], work.path),
    retune(
      ['plan-graph', 'plain.json', '-b', String(Math.floor(0.45 * basePeak)), '-j'],
      work.path,
    ),
  ]);
  assert.equal(packed.code, 0, packed.stderr);
  const { seconds, schedule, ...figures } = JSON.parse(packed.stdout);
  const replay = simulate(graph, schedule);
  assert.ok(replay.peakBytes <= 0.45 * basePeak);
  assert.equal(figures.peakBytes, replay.peakBytes);
  assert.equal(figures.extraNs, replay.extraNs);
  assert.equal(figures.extraHardNs, replay.extraHardNs);
  assert.ok(figures.lowerBoundNs > 0 && figures.lowerBoundNs <= figures.extraNs);
  assert.ok(
    Math.abs(figures.gap - (figures.extraNs - figures.lowerBoundNs) / replay.baseNs) < 1e-9,
  );
  assert.ok(seconds > 0 && seconds < 60);
  const again = JSON.parse(plain.stdout);
  assert.deepEqual(again.schedule, schedule);
});

test('a person is told what the budget costs, what runs again and what fills the peak', async () => {
  const { code, stdout } = await retune(['plan-graph', file, '--budget', '9MiB'], '.');
  assert.equal(code, 0);
  assert.match(stdout, /^501 nodes, 260 values with memory; a step computes 79\.0 us$/m);
  assert.match(stdout, /^ +without a budget +this plan$/m);
  assert.match(stdout, /^ +peak +18\.4 MiB +8\.\d\d MiB +4\d\.\d %$/m);
  assert.match(stdout, /^ +budget +9\.00 MiB +48\.9 %$/m);
  assert.match(stdout, /^Proven: no plan in this budget adds less than \+\d+\.\d\d %/m);
  assert.match(stdout, /^Computed again:\n +op +times +time +of the step\n +aten\./m);
  assert.match(stdout, /^Alive at the peak, while \S+ \(aten\.\S+\) runs:\n.*MiB$/m);
});

test('--frontier shows memory against time for 20 budgets', async () => {
  const [text, json] = await Promise.all([
    retune(['plan-graph', file, '--frontier'], '.'),
    retune(['plan-graph', file, '--frontier', '--json'], '.'),
  ]);
  assert.equal(text.code, 0, text.stderr);
  const rows = text.stdout.split('\n').filter((line) => /^ +[\d.]+ MiB/.test(line));
  assert.equal(rows.length, 20);
  assert.match(rows[19] ?? '', /100\.0 % .*\+0\.00 %/);
  const { points, basePeakBytes } = JSON.parse(json.stdout);
  assert.equal(basePeakBytes, basePeak);
  assert.equal(points.length, 20);
  points.reduce(
    (last: number, point: { budgetBytes: number; peakBytes: number; extraNs: number }) => {
      assert.ok(point.peakBytes <= point.budgetBytes);
      assert.ok(point.extraNs <= last);
      return point.extraNs;
    },
    Number.POSITIVE_INFINITY,
  );
});

test('mistakes are told in one message with what to do', async () => {
  await using work = await workFolder();
  const packed = readFileSync(file);
  await Promise.all([
    writeFile(join(work.path, 'cut.json.gz'), packed.subarray(0, 4000)),
    writeFile(join(work.path, 'cut.json'), gunzipSync(packed).subarray(0, 4000)),
    writeFile(join(work.path, 'other.json'), '{"layers": 3}'),
    writeFile(join(work.path, 'binary'), Uint8Array.from([0, 255, 3, 128])),
  ]);
  const cases: [string[], RegExp][] = [
    [['cut.json.gz', '-b', '50%'], /cut\.json\.gz is gzip that cannot be unpacked .*cut off/],
    [['cut.json', '-b', '50%'], /cut\.json is not JSON \(got 4000 characters/],
    [['other.json', '-b', '50%'], /other\.json holds no graph to plan: .*nodes is not as/],
    [['binary', '-b', '50%'], /binary is not JSON/],
    [['none.json', '-b', '50%'], /none\.json cannot be read \(got ENOENT/],
    [['.', '-b', '50%'], /cannot be read \(got EISDIR/],
    [[file], /give either --budget, such as --budget 40%, or --frontier/],
    [[file, '-b', '50%', '-f'], /give either --budget/],
    [
      [file, '-b', 'half'],
      /--budget must be bytes such as 512MiB or 1\.5GiB, or a share such as 40% \(got 'half'\)/,
    ],
    [[file, '-b', '-5MiB'], /--budget must be bytes .*got '-5MiB'/],
    [[file, '-b', '50%', '-s', '2'], /--soft-share must be a number above 0/],
    [[file, '-b', '0%'], /--budget must be bytes/],
    [[file, '-b', '10%'], /'_log_softmax_backward_data' alone needs 6\.00 MiB.*Give at least/],
  ];
  const ends = await Promise.all(cases.map(([args]) => retune(['plan-graph', ...args], work.path)));
  ends.forEach(({ code, stdout, stderr }, i) => {
    const [args, message] = cases[i]!;
    assert.ok(code === 1 || code === 2, `${args.join(' ')} ended with ${code}`);
    assert.match(stderr, message);
    assert.equal(stdout, '');
    assert.ok(!stderr.includes('    at '), stderr);
  });
});

test('long planning says how far it is, and how long it will take', async () => {
  const lines: string[] = [];
  const stream = { isTTY: false, write: (text: string) => lines.push(text) };
  const wait = new Wait(stream as unknown as NodeJS.WriteStream, 20);
  wait.show('budget 1 of 4', 0);
  await new Promise((resolve) => setTimeout(resolve, 30));
  wait.show('budget 3 of 4', 0.5);
  wait.show('budget 4 of 4', 0.75);
  await new Promise((resolve) => setTimeout(resolve, 220));
  wait.show('batch_size 2');
  wait.stop();
  assert.deepEqual(lines, ['budget 3 of 4: 50 %, 0s left\n', 'batch_size 2 ...\n']);
});

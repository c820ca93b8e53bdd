/** `retune explain` and `retune frontier`, run as commands. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = await mkdtemp(join(tmpdir(), 'retune-reports-'));
after(() => rm(folder, { recursive: true }));

function retune(...argv: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(root, 'bin/retune.mjs'), ...argv],
    { cwd: folder, encoding: 'utf8' },
  );
  return { code: status, out: stdout, err: stderr };
}

const small = ['--config', 'quickstart', 'batch_size=2', 'sequence_length=32'];

test('explain says what a budget keeps and computes again', () => {
  const setting = 'activation_checkpointing={ mode: budget, budget: 60% }';
  const { code, out, err } = retune('explain', ...small, setting);
  assert.equal(code, 0, err);
  assert.match(out, /^a step of 2 x 32 tokens; activation checkpointing: budget 60%/);
  assert.match(out, /\nbeside it: parameters .*, optimizer state /);
  assert.match(out, /\nsaved: [\s\S]*model\.layers\.\*[\s\S]*\nrecomputed: .* values\n/);
  const json = JSON.parse(retune('explain', ...small, setting, '--json').out) as {
    peakBytes: number;
    budgetBytes: number;
    parameterBytes: number;
    values: unknown[];
    timeline: unknown[];
  };
  assert.ok(json.peakBytes > 0 && json.peakBytes <= json.budgetBytes);
  assert.ok(json.parameterBytes > 0 && json.values.length > 0 && json.timeline.length > 0);
});

test('explain shows what mode auto chooses, and validate accepts it', () => {
  const setting = 'activation_checkpointing={ mode: auto, memory: 30MiB }';
  const { code, out, err } = retune('explain', ...small, setting);
  assert.equal(code, 0, err);
  assert.match(
    out,
    /^memory for training: 30\.0 MiB \(as memory says\)\nautomatic: batch_size 2; /,
  );
  assert.match(out, /\na step of 2 x 32 tokens; activation checkpointing: none/);
  const json = JSON.parse(retune('explain', ...small, setting, '--json').out) as {
    memory: { totalBytes: number; parameterBytes: number };
    parameterBytes: number;
  };
  assert.ok(json.memory.totalBytes <= 30 * 2 ** 20);
  assert.equal(json.memory.parameterBytes, json.parameterBytes);
  // Without memory it is what this machine has.
  const there = 'activation_checkpointing={ mode: auto }';
  const eager = retune('explain', ...small, there, 'compile=false');
  assert.equal(eager.code, 0, eager.err);
  assert.match(eager.out, /^memory for training: .*, less a margin of .*\nautomatic: .*\n$/);
  const valid = retune('validate', 'quickstart', setting);
  assert.match(valid.out, /is a valid config for quickstart/, valid.err);
});

test('a run that fits into no memory is refused with what would', () => {
  const setting = 'activation_checkpointing={ mode: auto, memory: 20MiB }';
  const { code, err } = retune('explain', ...small, setting);
  assert.equal(code, 1);
  assert.match(err, /training does not fit .*Give at least memory: \d+/s);
  assert.match(err, /dtype: bf16 \(batch_size 2: /);
});

test('a budget that cannot be kept is refused with the smallest that can', () => {
  const setting = 'activation_checkpointing={ mode: budget, budget: 1KiB }';
  const { code, err } = retune('explain', ...small, setting);
  assert.equal(code, 1);
  assert.match(err, /no plan keeps the step within 1\.00 KiB .*Give at least \d+ bytes/s);
});

test('what is not compiled, or has no config, is an error', () => {
  assert.match(retune('explain', ...small, 'compile=false').err, /compile: false.*compile=true/s);
  assert.match(retune('frontier').err, /frontier: it needs a config/);
  assert.match(retune('frontier', ...small, '--points', '1').err, /--points must be/);
});

test('frontier writes a table, JSON and a picture', async () => {
  const { code, out, err } = retune(
    ...['frontier', ...small, '--points', '6', '--measure', '2', '--rounds', '1', '-o', 'front'],
  );
  assert.equal(code, 0, err);
  assert.match(out, /^step memory {2}time added {2}at least\n/);
  const { estimated, measured } = JSON.parse(
    await readFile(join(folder, 'front.json'), 'utf8'),
  ) as Record<'estimated' | 'measured', { peakBytes: number; extraTime: number }[]>;
  assert.ok(estimated.length >= 2);
  estimated.forEach((point, i) => {
    const before = estimated[i - 1];
    if (!before) return;
    assert.ok(point.peakBytes > before.peakBytes && point.extraTime < before.extraTime);
  });
  assert.equal(estimated.at(-1)?.extraTime, 0);
  assert.equal(measured.length, 2);
  const allowed = [estimated[0], estimated.at(-1)];
  measured.forEach((point, i) => assert.ok(point.peakBytes <= (allowed[i]?.peakBytes ?? 0)));
  const svg = await readFile(join(folder, 'front.svg'), 'utf8');
  assert.match(
    svg,
    /^<svg [\s\S]*class="estimated" d="M[\s\S]*<circle class="measured"[\s\S]*<\/svg>\n$/,
  );
});

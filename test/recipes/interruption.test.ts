import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { FileError } from '../../src/core/errors.ts';
import { type FileSystem, nodeFileSystem } from '../../src/data/files/file-system.ts';
import {
  type CheckpointParts,
  latestCheckpoint,
  readCheckpoint,
  saveCheckpoint,
} from '../../src/recipes/run/training-state.ts';
import { liveBytes } from '../../src/tensor/backend.ts';
import { tensor } from '../../src/tensor/factory.ts';
import { asyncScope } from '../../src/tensor/with-scope.ts';
import { retune, startRetune } from '../support/processes.ts';
import { readLosses, tinyRun, weightsOf, workFolder } from './support.ts';

const command = ['run', 'pretrain', '--config', 'pretrain/byte_llama'];

/** Waits until the run has logged this step. */
async function reaches(folder: string, step: number): Promise<void> {
  for (let i = 0; i < 600; i++) {
    const metrics = await readFile(join(folder, 'metrics.jsonl'), 'utf8').catch(() => '');
    if (metrics.includes(`{"step":${step},`)) return;
    await setTimeout(20);
  }
  assert.fail(`no step ${step} in ${folder}`);
}

describe('a run that is killed', () => {
  test('and resumed ends with the bits of one that was not', async () => {
    await using work = await workFolder();
    const settings = ['max_steps=40', 'save_every_n_steps=3', 'activation_checkpointing.mode=full'];
    const killed = [...command, ...tinyRun(work.path, 'killed', ...settings)];
    const folder = join(work.path, 'killed');
    const straight = retune(
      [...command, ...tinyRun(work.path, 'straight', ...settings)],
      work.path,
    );
    let args = killed;
    for (const step of [4, 11]) {
      const running = startRetune(args, work.path);
      await reaches(folder, step);
      running.child.kill('SIGKILL');
      const end = await running.finished;
      assert.equal(end.signal, 'SIGKILL');
      args = [...killed, 'resume_from_checkpoint=true'];
    }
    const end = await retune(args, work.path);
    assert.equal(end.code, 0, end.stderr);
    assert.match(end.stdout, /resuming from .*step-0000\d\d, step/);
    assert.equal((await straight).code, 0);
    assert.deepEqual(await readLosses(folder), await readLosses(join(work.path, 'straight')));
    assert.equal(await weightsOf(folder), await weightsOf(join(work.path, 'straight')));
    assert.deepEqual(
      (await readdir(join(folder, 'checkpoints'))).filter((name) => !name.startsWith('step-')),
      [],
    );
  });

  test('by Ctrl-C saves first, exits with 130, and says how to go on', async () => {
    await using work = await workFolder();
    const overrides = tinyRun(work.path, 'run', 'max_steps=100000');
    const running = startRetune([...command, ...overrides], work.path);
    await reaches(join(work.path, 'run'), 3);
    running.child.kill('SIGINT');
    const end = await running.finished;
    assert.equal(end.code, 130, end.stderr);
    assert.match(end.stdout, /interrupted after step (\d+); saved .*step-0+\1/);
    assert.match(end.stdout, /resume_from_checkpoint=true/);
    const saved = await latestCheckpoint(join(work.path, 'run'));
    assert.ok(saved);
    const { state } = await readCheckpoint(saved);
    const losses = await readLosses(join(work.path, 'run'));
    assert.equal(state.step, losses.length);
  });
});

describe('a checkpoint that cannot be written', () => {
  const parts = (step: number): CheckpointParts => ({
    state: {
      step,
      data: { epoch: 0, position: 2 * step, fingerprint: 'f' },
      generators: { default: { seed: 1, offset: step } },
      schedule: { step },
      settings: {},
    },
    optimizer: {
      tensors: new Map([['exp_avg.w', tensor([step, 2, 3])]]),
      steps: { w: step },
      groups: [{ params: ['w'], lr: 1 }],
    },
    saveModel: async () => {},
  });

  /** The real file system, in which the n-th operation of this kind fails as on a full disk. */
  const failing = (n: number): { fs: FileSystem; reached: () => boolean } => {
    let count = 0;
    const step = async <T>(work: () => Promise<T>): Promise<T> => {
      if (count++ === n) throw Object.assign(new Error('ENOSPC: injected'), { code: 'ENOSPC' });
      return work();
    };
    const fs: FileSystem = {
      ...nodeFileSystem,
      create: (path) => step(() => nodeFileSystem.create(path)),
      syncFile: (path) => step(() => nodeFileSystem.syncFile(path)),
      makeFolder: (path) => step(() => nodeFileSystem.makeFolder(path)),
      rename: (from, to) => step(() => nodeFileSystem.rename(from, to)),
    };
    return { fs, reached: () => count > n };
  };

  test('leaves the one before whole, wherever it fails', async () => {
    const before = liveBytes();
    await using work = await workFolder();
    await asyncScope(() => failEverywhere(work.path));
    assert.equal(liveBytes(), before);
  });

  const failEverywhere = async (path: string): Promise<void> => {
    await saveCheckpoint(path, parts(1), { keepLast: 2 });
    let failures = 0;
    for (let n = 0; ; n++) {
      const { fs, reached } = failing(n);
      const saved = await saveCheckpoint(path, parts(2), { keepLast: 2, fs }).catch(
        (error: unknown) => error,
      );
      if (!reached()) break;
      failures++;
      assert.ok(saved instanceof FileError, `operation ${n}`);
      assert.match(saved.message, /saveCheckpoint|saveSafetensors|writeFileAtomic/);
      const latest = await latestCheckpoint(path);
      assert.ok(latest?.endsWith('step-000001'), `operation ${n}: ${latest}`);
      const { state, optimizer } = await readCheckpoint(latest ?? '');
      assert.equal(state.step, 1);
      assert.deepEqual([...optimizer.tensors.keys()], ['exp_avg.w']);
    }
    assert.ok(failures >= 6, `${failures} places to fail`);
    assert.ok((await latestCheckpoint(path))?.endsWith('step-000002'));
  };

  test('does not lose older ones, and later ones replace them', async () => {
    await using work = await workFolder();
    const save = (step: number): Promise<string> =>
      asyncScope(() => saveCheckpoint(work.path, parts(step), { keepLast: 2 }));
    for (const step of [1, 2, 3, 4]) await save(step);
    assert.deepEqual((await readdir(join(work.path, 'checkpoints'))).sort(), [
      'step-000003',
      'step-000004',
    ]);
    await save(4);
    assert.ok((await latestCheckpoint(work.path))?.endsWith('step-000004'));
    assert.equal(await latestCheckpoint(join(work.path, 'nowhere')), undefined);
  });
});

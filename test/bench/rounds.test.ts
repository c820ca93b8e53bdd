/** The benchmark's driver: rounds, discarding, ratios, verdicts. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { durationText, Forecast } from '../../bench/driver/forecast.ts';
import { LastingServer } from '../../bench/driver/lasting-server.ts';
import { busyFromProcStat } from '../../bench/driver/machine.ts';
import type { Timing } from '../../bench/driver/protocol.ts';
import { allRounds, cleanRounds, runRounds } from '../../bench/driver/rounds.ts';
import { ContestantError, Server, withoutFolders } from '../../bench/driver/server.ts';
import { median, ratios, spread } from '../../bench/driver/statistics.ts';

const quiet = { pauseMs: 0, maxOtherCores: 0.1, retries: 2, busy: () => 0 };

function turns(log: string[], name: string, ms: number) {
  return {
    name,
    turn: (): Promise<Timing> => {
      log.push(name);
      return Promise.resolve({ ms: [ms, ms + 2, ms + 1], cpuSeconds: 0 });
    },
  };
}

test('every contestant has a turn a round, in alternating order', async () => {
  const log: string[] = [];
  const records = await runRounds([turns(log, 'a', 10), turns(log, 'b', 20)], {
    ...quiet,
    rounds: 3,
  });
  assert.deepEqual(log, ['a', 'b', 'b', 'a', 'a', 'b']);
  assert.deepEqual(records.map(cleanRounds), [
    [11, 11, 11],
    [21, 21, 21],
  ]);
});

test('a disturbed turn is repeated, kept for the record, and counts in no figure', async () => {
  // Others work an hour during the first turn and nothing afterwards.
  const clock = [0, 3600];
  const [record] = await runRounds([turns([], 'a', 10)], {
    ...quiet,
    rounds: 2,
    busy: () => clock.shift() ?? 3600,
  });
  assert.ok(record);
  assert.deepEqual(
    record.turns.map(({ round, disturbed }) => [round, disturbed]),
    [
      [0, true],
      [0, false],
      [1, false],
    ],
  );
  assert.equal(cleanRounds(record).length, 2);
});

test('without an undisturbed turn a round stays empty', async () => {
  let now = 0;
  const options = { ...quiet, rounds: 1, busy: () => (now += 1000) };
  const [record] = await runRounds([turns([], 'a', 10)], options);
  assert.ok(record);
  assert.equal(record.turns.length, 1 + quiet.retries);
  assert.deepEqual(cleanRounds(record), []);
  assert.deepEqual(allRounds(record), [11]);
});

test('a turn that fails is noted and the next round tries again; twice in a row is out', async () => {
  const log: string[] = [];
  const failing = (name: string, rounds: readonly number[]) => {
    let round = 0;
    return {
      name,
      turn: () => {
        log.push(name);
        return rounds.includes(round++)
          ? Promise.reject(new ContestantError('no memory'))
          : Promise.resolve({ ms: [5], cpuSeconds: 0 });
      },
    };
  };
  const done: string[] = [];
  const contestants = [turns([], 'a', 1), failing('b', [0, 2]), failing('c', [1, 2])];
  const records = await runRounds(contestants, {
    ...quiet,
    rounds: 5,
    onDone: ({ name }, seconds) => done.push(seconds > 0 ? name : `no ${name}`),
  });
  const [a, b, c] = records;
  assert.ok(a && b && c);
  assert.equal(a.turns.length, 5);
  assert.deepEqual([...cleanRounds(b)], [undefined, 5, undefined, 5, 5]);
  assert.deepEqual(
    b.failed.map(({ round, reason }) => [round, reason]),
    [
      [0, 'no memory'],
      [2, 'no memory'],
    ],
  );
  assert.deepEqual(cleanRounds(c), [5]);
  assert.equal(log.filter((name) => name === 'c').length, 3);
  assert.equal(done.length, 15);
  assert.equal(done.filter((name) => name === 'no c').length, 2);
});

test('medians, spreads and ratios round by round', () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.ok(Number.isNaN(median([])));
  assert.equal(spread([]), undefined);
  assert.deepEqual(spread([2, 1, 6]), { min: 1, median: 2, max: 6, count: 3 });
  assert.deepEqual(ratios([10, undefined, 30], [5, 5, 10]), [2, 3]);
});

test('busy time leaves out idle and waiting, and counts what other guests took', () => {
  const text = 'cpu  100 10 30 5000 700 4 6 50 9 9\ncpu0 1 1 1 1\n';
  assert.equal(busyFromProcStat(text), 2);
});

test('paths are shortened, names with slashes are not', () => {
  assert.equal(withoutFolders('no /opt/some/lib.so here'), 'no lib.so here');
  assert.equal(withoutFolders('--python ../venv/bin/python'), '--python ../venv/bin/python');
  assert.equal(withoutFolders('torch/eager/none 3 tokens/s'), 'torch/eager/none 3 tokens/s');
});

test('a server that ends fails the open request with what it last said', async () => {
  const args = ['-e', 'console.error("it broke"); process.exitCode = 3;'];
  await using server = new Server({ program: process.execPath, args, env: {} });
  await assert.rejects(server.ask('facts', { threads: 1 }), /exit code 3: it broke/);
  await assert.rejects(server.ask('facts', { threads: 1 }), ContestantError);
});

test('a server answers after a record separator; other output is ignored', async () => {
  const script = `
    process.stdin.once('data', () => {
      console.log('noise');
      console.log('\\x1e' + JSON.stringify({ ok: true, name: 'x' }));
      console.log('\\x1e' + JSON.stringify({ ok: false, error: 'late' }));
    });
    process.stdin.on('end', () => process.exit());`;
  await using server = new Server({ program: process.execPath, args: ['-e', script], env: {} });
  assert.deepEqual(await server.ask('facts', { threads: 1 }), { name: 'x' });
});

test('a process that dies fails its request only; the next one goes to a prepared new process', async () => {
  // Answers how many requests it has had; the third is its end.
  const script = `
    let count = 0;
    require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
      if (line.includes('quit') || ++count === 3) process.exit(1);
      console.log('\\x1e' + JSON.stringify({ ok: true, count: String(count) }));
    });`;
  const command = { program: process.execPath, args: ['-e', script], env: {} };
  let prepared = 0;
  await using server = new LastingServer(command, async (fresh) => {
    prepared++;
    await fresh.ask('facts', { threads: 1 });
  });
  const ask = () => server.ask('facts', { threads: 1 });
  assert.deepEqual(await ask(), { count: '2' });
  await assert.rejects(ask(), /exit code 1/);
  assert.deepEqual(await ask(), { count: '2' });
  assert.equal(prepared, 2);
});

test('a process that never comes up is not started for ever', async () => {
  const command = { program: process.execPath, args: ['-e', 'process.exit(2)'], env: {} };
  let starts = 0;
  await using server = new LastingServer(command, async (fresh) => {
    starts++;
    await fresh.ask('facts', { threads: 1 });
  });
  for (let i = 0; i < 8; i++) {
    await assert.rejects(server.ask('facts', { threads: 1 }), ContestantError);
  }
  assert.equal(starts, 4);
});

test('what was measured corrects the guesses of the work that is left', () => {
  const forecast = new Forecast();
  forecast.plan('a', 10);
  forecast.plan('b', 10);
  assert.equal(forecast.secondsLeft, undefined);
  forecast.finish('a', 5, 20);
  // Both are four times as slow as guessed: 5 of a and 10 of b are left.
  assert.equal(forecast.secondsLeft, 60);
  forecast.finish('b', 5, 5);
  assert.equal(forecast.secondsLeft, 25);
  forecast.drop('b', 5);
  forecast.finish('a', 5, 20);
  assert.equal(forecast.secondsLeft, 0);
  assert.deepEqual([30.2, 90, 4000].map(durationText), ['31 s', '2 min', '1 h 7 min']);
});

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { buildProgram, commands } from '../../src/cli/main.ts';
import { pretrain, tinyRun, workFolder } from '../recipes/support.ts';
import { retune } from '../support/processes.ts';

const manifest = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8'));

describe('help', () => {
  test('lists these commands and flags', async () => {
    const program = await buildProgram(['--help'], { code: 0 });
    const flags = program.commands.map((command) => [
      command.name(),
      command.registeredArguments.map((argument) => argument.name()),
      command.options.map((option) => option.flags),
    ]);
    assert.deepEqual(flags, [
      [
        'run',
        ['recipe', 'overrides'],
        ['-c, --config <name-or-file>', '-q, --quiet', '--trace-memory <file>'],
      ],
      ['ls', [], []],
      ['cp', ['name', 'destination'], ['-f, --force']],
      ['validate', ['config', 'overrides'], ['-r, --recipe <name>', '-p, --print']],
      ['explain', ['overrides'], ['-c, --config <name-or-file>', '-r, --recipe <name>', '--json']],
      [
        'frontier',
        ['overrides'],
        [
          '-c, --config <name-or-file>',
          '-r, --recipe <name>',
          '-n, --points <number>',
          '-m, --measure <number>',
          '--rounds <number>',
          '-o, --output <file>',
        ],
      ],
      [
        'generate',
        [],
        [
          '-m, --model <folder>',
          '-p, --prompt <text>',
          '-n, --max-new-tokens <count>',
          '-t, --temperature <value>',
          '-k, --top-k <count>',
          '--top-p <share>',
          '-s, --seed <number>',
        ],
      ],
      [
        'plan-graph',
        ['file'],
        ['-b, --budget <bytes>', '-s, --soft-share <share>', '-f, --frontier', '-j, --json'],
      ],
      ['info', [], []],
    ]);
  });

  test('teaches every command with an example and explains every flag', () => {
    for (const command of commands) {
      assert.ok(command.examples.length > 0, command.name);
      for (const example of command.examples) assert.match(example.command, /retune /);
      for (const option of command.options) assert.ok(option.doc.length > 15, option.flags);
      for (const argument of command.arguments) assert.ok(argument.doc.length > 15, argument.spec);
    }
  });

  test('of a recipe shows its keys; of everything comes from the process', async () => {
    const [top, recipe, version, nothing] = await Promise.all([
      retune(['--help'], '.'),
      retune(['run', 'pretrain', '--help'], '.'),
      retune(['--version'], '.'),
      retune([], '.'),
    ]);
    assert.equal(top.code, 0);
    for (const { name, summary } of commands) {
      assert.match(top.stdout, new RegExp(`^  ${name} .*${summary.slice(0, 12)}`, 'm'));
    }
    assert.match(top.stdout, /Examples:\n {2}retune run quickstart/);
    assert.equal(recipe.code, 0);
    assert.match(recipe.stdout, /optimizer\.lr\n +Learning rate before the schedule\./);
    assert.match(recipe.stdout, /gradient_accumulation_steps\n.*default 1/);
    assert.equal(version.stdout.trim(), manifest.version);
    assert.equal(nothing.stdout, top.stdout);
  });
});

describe('start-up', () => {
  test('loads no more than the command line itself', async () => {
    const loaded = new Set<string>();
    const visit = async (file: URL): Promise<void> => {
      if (loaded.has(file.href)) return;
      loaded.add(file.href);
      const source = await readFile(file, 'utf8');
      for (const match of source.matchAll(
        /^(?:import|export) (?!type )[^;]*?from '(\.[^']+)';/gms,
      )) {
        await visit(new URL(match[1]!, file));
      }
    };
    const root = new URL('../../src/', import.meta.url);
    await visit(new URL('cli/main.ts', root));
    const names = [...loaded].map((href) => href.slice(root.href.length)).sort();
    assert.deepEqual(
      names.filter((name) => !name.startsWith('cli/')),
      ['core/errors.ts'],
    );
    assert.ok(names.length >= 8);
  });
});

describe('commands', () => {
  test('ls, cp, validate and run fit together', async () => {
    await using work = await workFolder();
    const ls = await retune(['ls'], work.path);
    assert.equal(ls.code, 0);
    assert.match(ls.stdout, /^pretrain +pretrain\/byte_llama$/m);
    assert.match(ls.stdout, /^full_finetune +trains all weights/m);

    const copied = await retune(['cp', 'pretrain/byte_llama', 'my.yaml'], work.path);
    assert.equal(copied.code, 0, copied.stderr);
    const again = await retune(['cp', 'pretrain/byte_llama', 'my.yaml'], work.path);
    assert.equal(again.code, 1);
    assert.match(
      again.stderr,
      /retune: cp: the destination is there already \(got my\.yaml\).*--force/,
    );
    assert.equal((await retune(['cp', '-f', 'pretrain/byte_llama', 'my.yaml'], work.path)).code, 0);

    const valid = await retune(
      ['validate', 'my.yaml', '--recipe', 'pretrain', 'seed=7', '--print'],
      work.path,
    );
    assert.equal(valid.code, 0, valid.stderr);
    assert.match(valid.stdout, /^seed: 7$/m);
    assert.match(valid.stdout, /^keep_last_n_checkpoints: 2$/m);
    const invalid = await retune(['validate', 'my.yaml', 'optimizer.rl=1'], work.path);
    assert.equal(invalid.code, 1);
    assert.match(
      invalid.stderr,
      /^retune: my\.yaml: unknown key optimizer\.rl \(got 1\)\. Did you mean optimizer\.lr/,
    );

    const overrides = tinyRun('.', 'run', 'max_steps=2');
    const run = await retune(['run', 'pretrain', '-c', 'my.yaml', ...overrides], work.path);
    assert.equal(run.code, 0, run.stderr);
    assert.match(
      run.stderr,
      /^step 2\/2 +loss \d\.\d+ +[\d,.]+ tok\/s +step memory [\d.]+ [KM]iB/m,
    );
    assert.match(run.stdout, /model saved in run\/model/);
    const quiet = await retune(
      ['run', 'pretrain', '-q', '-c', 'my.yaml', ...overrides, 'overwrite=true'],
      work.path,
    );
    assert.deepEqual([quiet.code, quiet.stdout, quiet.stderr], [0, '', '']);
  });

  test('generate continues a prompt, the same for the same seed', async () => {
    await using work = await workFolder();
    await pretrain(tinyRun(work.path, 'run', 'max_steps=2'));
    const say = (...options: string[]) =>
      retune(['generate', '--model', 'run/model', '--prompt', 'the dog', ...options], work.path);
    const [first, second, greedy, narrow, fails] = await Promise.all([
      say('-n', '12', '--seed', '3'),
      say('-n', '12', '--seed', '3'),
      say('-n', '40', '--temperature', '0'),
      say('-n', '40', '--top-k', '1', '--seed', '9'),
      say('--top-p', '2'),
    ]);
    assert.equal(first.code, 0, first.stderr);
    assert.ok(first.stdout.startsWith('the dog'));
    assert.ok(first.stdout.length > 'the dog\n'.length);
    assert.equal(first.stdout, second.stdout);
    assert.equal(greedy.stdout, narrow.stdout);
    assert.ok(greedy.stdout.length > 30, 'it stopped at the 16 positions of the model');
    assert.equal(fails.code, 1);
    assert.match(fails.stderr, /--top-p must be a number above 0 and at most 1 \(got '2'\)/);
  });

  test('info names the backend, threads, matrix multiply and memory', async () => {
    const { code, stdout } = await retune(['info'], '.');
    assert.equal(code, 0);
    for (const name of ['node', 'memory', 'backend', 'threads', 'matmul', 'RETUNE_BLAS']) {
      assert.match(stdout, new RegExp(`^ *${name}\\b.*`, 'm'));
    }
  });

  test('mistakes get an exit code, one message and no stack', async () => {
    await using work = await workFolder();
    await writeFile(join(work.path, 'bad.yaml'), 'model: [');
    const cases: [string[], RegExp][] = [
      [['rnu'], /unknown command 'rnu'[\s\S]*Did you mean run/],
      [['run', 'pretrain', '--confg', 'x'], /unknown option '--confg'[\s\S]*Did you mean --config/],
      [['run'], /missing required argument 'recipe'/],
      [
        ['run', 'pretrain'],
        /retune: run: pretrain needs a config\. Try --config pretrain\/byte_llama/,
      ],
      [['run', 'pretain', '-c', 'x'], /no recipe 'pretain'\. Did you mean pretrain/],
      [['run', 'pretrain', '-c', 'full_finetune/smollm2_135m'], /is a config for full_finetune/],
      [['run', 'pretrain', '-c', 'bad.yaml'], /bad\.yaml: it is not valid YAML/],
      [['run', 'pretrain', '-c', 'no.yaml'], /there is no config 'no\.yaml'/],
      [
        ['cp', 'pretrain/bite_llama'],
        /no config 'pretrain\/bite_llama'\. Did you mean pretrain\/byte_llama/,
      ],
      [['generate', '--prompt', 'x'], /generate: --model is missing/],
      [['generate', '--model', 'nowhere', '--prompt', 'x'], /nowhere\/config\.json cannot be read/],
    ];
    const ends = await Promise.all(cases.map(([args]) => retune(args, work.path)));
    ends.forEach(({ code, stderr }, i) => {
      const [args, message] = cases[i]!;
      assert.ok(code === 1 || code === 2, `${args.join(' ')} ended with ${code}`);
      assert.match(stderr, message);
      assert.ok(!stderr.includes('    at '), stderr);
    });
  });
});

/**
 * What a user gets: the package is built, packed, installed into an empty project, imported from
 * plain JavaScript through every entry, and type-checked from TypeScript with every library type
 * checked too. The working tree's dist is not touched.
 */

import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { build } from '../../scripts/build.ts';
import { listEntries } from '../../scripts/check-exports.ts';
import { compilerPath, projectRoot } from '../../scripts/project-files.ts';

const entries = listEntries(projectRoot).filter(({ state }) => state === 'present');
const hasIndex = entries.some(({ specifier }) => specifier === 'retune');
const skip = hasIndex ? false : 'src/index.ts does not exist yet';

let root = '';
let consumer = '';
let packed: string[] = [];

function run(command: string, argv: readonly string[], cwd: string): SpawnSyncReturns<string> {
  const shell = process.platform === 'win32';
  return spawnSync(command, argv, { cwd, encoding: 'utf8', shell });
}

function mustRun(command: string, argv: readonly string[], cwd: string): string {
  const { status, stdout, stderr } = run(command, argv, cwd);
  assert.equal(status, 0, `${command} ${argv.join(' ')}\n${stdout}${stderr}`);
  return stdout;
}

/** A copy of what npm packs, so that two runs do not write one dist; returns the tarball's path. */
async function pack(): Promise<string> {
  const staged = path.join(root, 'staged');
  mkdirSync(staged);
  for (const name of ['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'bin']) {
    cpSync(path.join(projectRoot, name), path.join(staged, name), { recursive: true });
  }
  await build(path.join(staged, 'dist'));
  const argv = ['pack', '--ignore-scripts', '--json', '--pack-destination', root];
  const answer: unknown = JSON.parse(mustRun('npm', argv, staged));
  const [info] = Object.values(answer as Record<string, PackInfo>);
  assert.ok(info);
  packed = info.files.map((file) => file.path);
  return path.join(root, info.filename);
}

interface PackInfo {
  readonly filename: string;
  readonly files: readonly { readonly path: string }[];
}

/**
 * Installs with npm; nothing native is asked for (`--omit=optional`). Without a registry and with a
 * cold cache npm cannot resolve the dependencies: then the tarball is unpacked and they are linked.
 */
function install(tarball: string): string {
  const argv = ['install', tarball, '--prefer-offline', '--omit=optional', '--ignore-scripts'];
  const quiet = ['--no-audit', '--no-fund', '--fetch-retries=0', '--fetch-timeout=30000'];
  const { status, stdout, stderr } = run('npm', [...argv, ...quiet], consumer);
  if (status === 0) return 'npm';
  assert.match(
    `${stdout}${stderr}`,
    /ENOTCACHED|ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|E404|ETARGET|network/,
    `npm install failed for another reason than the network:\n${stdout}${stderr}`,
  );
  const modules = path.join(consumer, 'node_modules');
  rmSync(modules, { recursive: true, force: true });
  mkdirSync(path.join(modules, 'retune'), { recursive: true });
  mustRun('tar', ['-xzf', tarball, '--strip-components=1', '-C', 'node_modules/retune'], consumer);
  const manifest = JSON.parse(readFileSync(path.join(projectRoot, 'package.json'), 'utf8'));
  for (const name of Object.keys(manifest.dependencies ?? {})) link(name);
  return 'links';
}

/** Makes an installed package of the working tree visible to the consumer. */
function link(name: string): void {
  const target = path.join(consumer, 'node_modules', name);
  if (existsSync(target)) return;
  mkdirSync(path.dirname(target), { recursive: true });
  symlinkSync(realpathSync(path.join(projectRoot, 'node_modules', name)), target, 'junction');
}

describe('the packed tarball', { skip }, () => {
  before(async () => {
    root = realpathSync(mkdtempSync(path.join(tmpdir(), 'retune-tarball-')));
    consumer = path.join(root, 'consumer');
    mkdirSync(consumer);
    const manifest = { name: 'consumer', version: '1.0.0', private: true, type: 'module' };
    writeFileSync(path.join(consumer, 'package.json'), JSON.stringify(manifest));
    const way = install(await pack());
    if (way === 'links') console.log('tarball: no registry; dependencies were linked instead');
  });

  after(() => rmSync(root, { recursive: true, force: true }));

  test('holds dist, bin and the pages, and neither sources nor tests', () => {
    const stray = packed.filter((file) => !/^(dist|bin)\/|^[A-Za-z.]+$/.test(file));
    assert.deepEqual(stray, []);
    const sources = packed.filter((file) => /\.(test|nightly|bench)\.|(?<!\.d)\.ts$/.test(file));
    assert.deepEqual(sources, []);
    for (const file of ['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'bin/retune.mjs']) {
      assert.ok(packed.includes(file), `${file} is not in the tarball`);
    }
  });

  test('imports no TypeScript file', () => {
    const dist = path.join(consumer, 'node_modules/retune/dist');
    const modules = readdirSync(dist, { recursive: true, encoding: 'utf8' });
    const left = modules
      .filter((file) => file.endsWith('.js'))
      .filter((file) => {
        const code = readFileSync(path.join(dist, file), 'utf8');
        return /(\bfrom |\bimport\(|\bnew URL\()['"]\.[^'"]*\.ts['"]/.test(code);
      });
    assert.deepEqual(left, []);
  });

  for (const { specifier } of entries) {
    test(`${specifier} is imported from plain JavaScript`, () => {
      const code = `console.log(Object.keys(await import('${specifier}')).length);`;
      const argv = ['--input-type=module', '--eval', code];
      assert.ok(Number(mustRun(process.execPath, argv, consumer)) > 0);
    });
  }

  test('trains on threads, offloads to a file, and names the line of its user', () => {
    writeFileSync(path.join(consumer, 'train.mjs'), trainingProgram);
    const lines = mustRun(process.execPath, ['train.mjs'], consumer).trim().split('\n');
    assert.equal(lines[0], lines[1], 'the gradient is the same with offloading');
    assert.match(lines[2] ?? '', /train\.mjs:\d+/);
  });

  test('type-checks in a strict TypeScript project, library types included', () => {
    for (const name of ['@types/node', 'undici-types', '@webgpu/types']) link(name);
    const lines = entries.map(
      ({ specifier }, index) =>
        `import * as entry${index} from '${specifier}';\n` +
        `export const names${index}: readonly string[] = Object.keys(entry${index});\n`,
    );
    writeFileSync(path.join(consumer, 'main.ts'), lines.join(''));
    const config = {
      compilerOptions: {
        strict: true,
        exactOptionalPropertyTypes: true,
        noUncheckedIndexedAccess: true,
        module: 'nodenext',
        target: 'es2024',
        lib: ['es2025', 'esnext.disposable', 'dom'],
        types: ['node'],
        skipLibCheck: false,
        noEmit: true,
      },
      files: ['main.ts'],
    };
    writeFileSync(path.join(consumer, 'tsconfig.json'), JSON.stringify(config));
    mustRun(process.execPath, [compilerPath(), '-p', '.'], consumer);
  });

  test('the command answers --help', { skip: existsSync(mainSource()) ? false : 'no cli' }, () => {
    const command = path.join(consumer, 'node_modules/retune/bin/retune.mjs');
    assert.match(mustRun(process.execPath, [command, '--help'], consumer), /retune/);
    assert.match(mustRun(process.execPath, [command, 'ls'], consumer), /quickstart/);
    mustRun(process.execPath, [command, 'cp', 'quickstart'], consumer);
    mustRun(process.execPath, [command, 'validate', 'quickstart.yaml'], consumer);
  });
});

/** Needs what the build keeps as files of its own: the code of threads, and the library's folder. */
const trainingProgram = `
import { backward, checkpoint, createCpuBackend, gelu, manualSeed, matmul, normal } from 'retune';
import { offloadActivations, scope, setBackend, sin, sum, toArray } from 'retune';
setBackend(createCpuBackend({ threads: 2 }));
manualSeed(0);
const size = 256;
const weight = normal([size, size]);
weight.requiresGrad = true;
const x = normal([size, size]);
const loss = () => sum(gelu(matmul(gelu(matmul(x, weight)), weight)));
const gradient = (compute) => scope(() => {
  weight.grad = undefined;
  backward(compute());
  return toArray(weight.grad).reduce((total, value) => total + value * value, 0);
});
console.log(gradient(loss));
console.log(gradient(() => offloadActivations({ to: 'file', minBytes: 0 }, loss)));
let calls = 0;
const unsteady = (value) => (calls++ === 0 ? sin(sin(sin(value))) : sin(value));
try {
  gradient(() => sum(checkpoint(unsteady, [weight], { debug: true })));
} catch (error) {
  console.log(error.message.replaceAll('\\n', ' '));
}
`;

function mainSource(): string {
  return path.join(projectRoot, 'src/cli/main.ts');
}

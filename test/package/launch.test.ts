import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { projectRoot } from '../../scripts/project-files.ts';

const launch = JSON.stringify(new URL('../../bin/launch.mjs', import.meta.url).href);

/** Command line of a parent that runs `code` in a child through bin/launch.mjs. */
function parentOf(code: string): string[] {
  const argv = JSON.stringify(['--eval', code]);
  return [
    '--input-type=module',
    '--eval',
    `import { becomeChild } from ${launch}; becomeChild(process.execPath, ${argv});`,
  ];
}

test('versions below 24 are too old', () => {
  const code = `import { isTooOld } from ${launch};
    console.log(['18.19.0', '20.11.1', '23.9.0', '24.0.0', '26.1.0'].map(isTooOld).join());`;
  const run = spawnSync(process.execPath, ['--input-type=module', '--eval', code]);
  assert.equal(run.stdout.toString().trim(), 'true,true,true,false,false');
});

test('the bundled Node is found and is new enough', () => {
  const from = JSON.stringify(new URL('../../bin/retune.mjs', import.meta.url).href);
  const code = `import { findBundledNode } from ${launch}; console.log(findBundledNode(${from}));`;
  const run = spawnSync(process.execPath, ['--input-type=module', '--eval', code]);
  const binary = run.stdout.toString().trim();
  assert.ok(binary.startsWith(path.join(projectRoot, 'node_modules')), binary);
  const version = spawnSync(binary, ['--version']).stdout.toString();
  assert.ok(Number.parseInt(version.slice(1), 10) >= 24, version);
});

test('a missing bundled Node is undefined, not an error', () => {
  const code = `import { findBundledNode } from ${launch};
    console.log(findBundledNode('file:///nowhere/bin/retune.mjs'));`;
  const run = spawnSync(process.execPath, ['--input-type=module', '--eval', code]);
  assert.equal(run.stdout.toString().trim(), 'undefined');
});

test('the exit code and the output of the child are those of the parent', () => {
  const run = spawnSync(process.execPath, parentOf("console.log('out'); process.exitCode = 7;"));
  assert.equal(run.stdout.toString().trim(), 'out');
  assert.equal(run.status, 7);
});

test('a child killed by a signal kills the parent by the same signal', () => {
  const run = spawnSync(process.execPath, parentOf("process.kill(process.pid, 'SIGKILL');"));
  assert.equal(run.signal, 'SIGKILL');
});

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`${signal} reaches the child, which may end in its own way`, async () => {
    const child = `process.on('${signal}', () => { console.log('caught'); process.exit(5); });
      console.log('ready'); setInterval(() => {}, 1000);`;
    const parent = spawn(process.execPath, parentOf(child), {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    parent.stdout.on('data', (chunk) => {
      output += chunk;
      if (output === 'ready\n') parent.kill(signal);
    });
    const code = await new Promise((resolve) => parent.on('close', resolve));
    assert.equal(output, 'ready\ncaught\n');
    assert.equal(code, 5);
  });
}

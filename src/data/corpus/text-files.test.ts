import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type DocumentReadOptions, findTextFiles, readDocuments } from './text-files.ts';

let cwd = '';
before(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'retune-corpus-'));
  const files = {
    'b.txt': 'bee',
    'a.txt': '\ufeffay',
    'sub/Z.md': 'zed',
    'sub/deep/c.txt': 'cee',
    'sub/code.ts': 'let x;',
    'empty.log': '',
    'bad.bin': Buffer.from([0x61, 0xc3, 0xa9, 0x62, 0xff, 0x63]),
    'nul.bin': Buffer.from([0x61, 0]),
    'wide.log': 'a\u00e9\u{1f600}b',
  };
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(cwd, name)), { recursive: true });
    await writeFile(join(cwd, name), content);
  }
});
after(() => rm(cwd, { recursive: true, force: true }));

async function texts(paths: string[], options: DocumentReadOptions = {}): Promise<string[]> {
  const out: string[] = [];
  for await (const { text } of readDocuments(paths, { cwd, ...options })) out.push(text);
  return out;
}

describe('findTextFiles', () => {
  test('takes files, folders and globs, each file once, sorted by code unit', async () => {
    assert.deepEqual(await findTextFiles('.', { cwd }), [
      'a.txt',
      'b.txt',
      'sub/Z.md',
      'sub/deep/c.txt',
    ]);
    assert.deepEqual(await findTextFiles(['b.txt', 'sub', '**/*.txt'], { cwd }), [
      'a.txt',
      'b.txt',
      'sub/Z.md',
      'sub/deep/c.txt',
    ]);
    assert.deepEqual(await findTextFiles(join(cwd, 'sub'), { cwd, extensions: ['.ts'] }), [
      'sub/code.ts',
    ]);
    assert.deepEqual(await findTextFiles('sub/code.ts', { cwd }), ['sub/code.ts']);
  });

  test('leaves out what exclude matches and stops at maxFiles', async () => {
    const found = await findTextFiles('.', { cwd, exclude: ['sub/**'] });
    assert.deepEqual(found, ['a.txt', 'b.txt']);
    assert.deepEqual(await findTextFiles('.', { cwd, maxFiles: 1 }), ['a.txt']);
  });

  test('names a pattern that matches nothing', async () => {
    for (const pattern of ['*.nothing', 'nowhere.txt']) {
      await assert.rejects(findTextFiles(['a.txt', pattern], { cwd }), (error: Error) => {
        assert.equal(error.name, 'FileError');
        assert.ok(error.message.includes(`no file matches (got '${pattern}'`));
        return true;
      });
    }
  });
});

describe('readDocuments', () => {
  test('gives texts without byte order mark, and leaves empty files out', async () => {
    assert.deepEqual(await texts(['b.txt', 'empty.log', 'a.txt']), ['bee', 'ay']);
  });

  test('refuses or skips what is no text, naming the byte', async () => {
    await assert.rejects(texts(['bad.bin']), {
      name: 'FileError',
      message: /bad\.bin is not text \(got: byte 4 is no UTF-8\)/,
    });
    await assert.rejects(texts(['nul.bin']), /NUL bytes/);
    const skipped: string[] = [];
    const options: DocumentReadOptions = {
      invalid: 'skip',
      onSkip: (path, reason) => skipped.push(`${path}: ${reason}`),
    };
    assert.deepEqual(await texts(['bad.bin', 'nul.bin', 'b.txt'], options), ['bee']);
    assert.deepEqual(skipped, ['bad.bin: byte 4 is no UTF-8', 'nul.bin: it holds NUL bytes']);
  });

  test('caps each file and the total, and never cuts a character', async () => {
    assert.deepEqual(await texts(['wide.log', 'b.txt'], { maxFileBytes: 3 }), ['bee']);
    assert.deepEqual(await texts(['b.txt', 'a.txt'], { maxTotalBytes: 2 }), ['be']);
    const cuts = ['a', 'a', 'a\u00e9', 'a\u00e9', 'a\u00e9', 'a\u00e9', 'a\u00e9\u{1f600}'];
    for (const [i, text] of cuts.entries()) {
      assert.deepEqual(await texts(['wide.log', 'b.txt'], { maxTotalBytes: i + 1 }), [text]);
    }
    await assert.rejects(texts(['b.txt'], { maxTotalBytes: 0 }), /must be positive/);
  });

  test('reports a missing file', async () => {
    await assert.rejects(texts(['gone.txt']), /does not exist \(got ENOENT at gone\.txt\)/);
  });
});

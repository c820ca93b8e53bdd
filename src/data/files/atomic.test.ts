import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { FileError } from '../../core/errors.ts';
import { recoverFolder, writeFileAtomic, writeFolderAtomic } from './atomic.ts';
import { type FileSystem, nodeFileSystem } from './file-system.ts';

let root = '';
let count = 0;
before(async () => {
  root = await mkdtemp(join(tmpdir(), 'retune-atomic-'));
});
after(() => rm(root, { recursive: true, force: true }));

async function emptyFolder(): Promise<string> {
  const folder = join(root, String(count++));
  await mkdir(folder);
  return folder;
}

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: injected`), { code });
}

/** The real file system, in which operation number `failAt` (counted from 0) fails with `code`. */
function failing(failAt: number, code: string): { fs: FileSystem; operations: () => number } {
  let done = 0;
  const step = async <T>(run: () => Promise<T>): Promise<T> => {
    if (done++ === failAt) throw systemError(code);
    return run();
  };
  const real = nodeFileSystem;
  const fs: FileSystem = {
    create: (path) =>
      step(async () => {
        const file = await real.create(path);
        return {
          append: (bytes) => step(() => file.append(bytes)),
          writeAt: (bytes, position) => step(() => file.writeAt(bytes, position)),
          sync: () => step(() => file.sync()),
          close: () => file.close(),
        };
      }),
    syncFile: (path) => step(() => real.syncFile(path)),
    syncFolder: (path) => step(() => real.syncFolder(path)),
    makeFolder: (path) => step(() => real.makeFolder(path)),
    rename: (from, to) => step(() => real.rename(from, to)),
    remove: (path) => real.remove(path),
    exists: (path) => step(() => real.exists(path)),
    list: (path) => step(() => real.list(path)),
  };
  return { fs, operations: () => done };
}

async function writeVersion(folder: string, version: string): Promise<void> {
  await writeFile(join(folder, 'a.txt'), version);
  await mkdir(join(folder, 'sub'));
  await writeFile(join(folder, 'sub', 'b.txt'), version);
}

async function readVersion(folder: string): Promise<string> {
  const a = await readFile(join(folder, 'a.txt'), 'utf8');
  const b = await readFile(join(folder, 'sub', 'b.txt'), 'utf8');
  assert.equal(a, b, 'the folder mixes two versions');
  return a;
}

describe('writeFileAtomic', () => {
  test('writes text, bytes and streamed parts, and leaves nothing else', async () => {
    const folder = await emptyFolder();
    const path = join(folder, 'file');
    await writeFileAtomic(path, 'text');
    assert.equal(await readFile(path, 'utf8'), 'text');
    await writeFileAtomic(path, Uint8Array.of(1, 2, 3));
    assert.deepEqual([...(await readFile(path))], [1, 2, 3]);
    await writeFileAtomic(path, async (file) => {
      await file.append(Buffer.from('....'));
      await file.append(Buffer.from('tail'));
      await file.writeAt(Buffer.from('head'), 0);
    });
    assert.equal(await readFile(path, 'utf8'), 'headtail');
    assert.deepEqual(await readdir(folder), ['file']);
  });

  test('keeps the old or the new content whole wherever an operation fails', async () => {
    const folder = await emptyFolder();
    const path = join(folder, 'file');
    const total = failing(-1, 'ENOSPC');
    await writeFileAtomic(path, 'new', { fs: total.fs });
    for (let failAt = 0; failAt < total.operations(); failAt++) {
      await writeFile(path, 'old');
      const { fs } = failing(failAt, 'ENOSPC');
      const failure = await writeFileAtomic(path, 'new', { fs }).catch((e: unknown) => e);
      assert.ok(failure instanceof FileError);
      assert.equal(failure.details.reason, 'disk-full');
      const content = await readFile(path, 'utf8');
      assert.equal(content, /is unchanged/.test(failure.message) ? 'old' : 'new');
      assert.deepEqual(await readdir(folder), ['file'], `after failing operation ${failAt}`);
    }
  });

  test('names the path, the reason and the system code', async () => {
    const folder = await emptyFolder();
    const path = join(folder, 'missing', 'file');
    await assert.rejects(writeFileAtomic(path, 'x'), (error) => {
      assert.ok(error instanceof FileError);
      assert.equal(error.details.reason, 'missing');
      assert.match(error.message, /^writeFileAtomic: the path does not exist \(got ENOENT at /);
      assert.ok(error.message.includes(path));
      return true;
    });
    const { fs } = failing(1, 'EACCES');
    await assert.rejects(writeFileAtomic(join(folder, 'f'), 'x', { fs, who: 'save' }), {
      name: 'FileError',
      message: /^save: access is not permitted \(got EACCES/,
    });
  });

  test('passes errors of the content function through and keeps the old file', async () => {
    const path = join(await emptyFolder(), 'file');
    await writeFileAtomic(path, 'old');
    const mine = new RangeError('mine');
    const write = writeFileAtomic(path, async (file) => {
      await file.append(Buffer.from('partial'));
      throw mine;
    });
    await assert.rejects(write, mine);
    assert.equal(await readFile(path, 'utf8'), 'old');
  });

  test('removes partial files of processes that are gone, and only those', async () => {
    const folder = await emptyFolder();
    const host = hostname().replace(/[^A-Za-z0-9]/g, '_');
    const child = spawn(process.execPath, ['-e', '']);
    await once(child, 'exit');
    await writeFile(join(folder, `.file.partial-${host}-${child.pid}-1`), 'dead');
    const alive = `.file.partial-${host}-${process.pid}-0`;
    await writeFile(join(folder, alive), 'alive');
    await writeFileAtomic(join(folder, 'file'), 'x');
    assert.deepEqual((await readdir(folder)).sort(), [alive, 'file']);
  });
});

describe('writeFolderAtomic', () => {
  test('creates the folder and those above it, and replaces it whole', async () => {
    const parent = join(await emptyFolder(), 'x', 'y');
    const path = join(parent, 'checkpoint');
    await writeFolderAtomic(path, (folder) => writeVersion(folder, 'one'));
    assert.equal(await readVersion(path), 'one');
    await writeFolderAtomic(path, (folder) => writeFile(join(folder, 'only'), 'two'));
    assert.deepEqual(await readdir(path), ['only']);
    assert.deepEqual(await readdir(parent), ['checkpoint']);
  });

  test('leaves one whole version wherever an operation fails', async () => {
    const parent = await emptyFolder();
    const path = join(parent, 'checkpoint');
    const build = (folder: string) => writeVersion(folder, 'new');
    await writeFolderAtomic(path, (folder) => writeVersion(folder, 'old'));
    const total = failing(-1, 'ENOSPC');
    await writeFolderAtomic(path, build, { fs: total.fs });
    assert.ok(total.operations() > 10);
    for (let failAt = 0; failAt < total.operations(); failAt++) {
      await writeFolderAtomic(path, (folder) => writeVersion(folder, 'old'));
      const { fs } = failing(failAt, 'EDQUOT');
      const failure = await writeFolderAtomic(path, build, { fs }).catch((e: unknown) => e);
      assert.ok(failure instanceof FileError, `operation ${failAt}`);
      assert.equal(failure.details.reason, 'disk-full');
      const expected = /is unchanged/.test(failure.message) ? 'old' : 'new';
      assert.equal(await readVersion(path), expected, `operation ${failAt}`);
      await recoverFolder(path);
      assert.deepEqual(await readdir(parent), ['checkpoint']);
    }
  });

  test('turns a full disk inside build into a FileError and keeps the old folder', async () => {
    const path = join(await emptyFolder(), 'checkpoint');
    await writeFolderAtomic(path, (folder) => writeVersion(folder, 'old'));
    const write = writeFolderAtomic(path, async (folder) => {
      await writeFile(join(folder, 'a.txt'), 'new');
      throw systemError('ENOSPC');
    });
    await assert.rejects(write, { name: 'FileError', message: /disk is full.*is unchanged/ });
    assert.equal(await readVersion(path), 'old');
  });

  test('recovers the old folder after a process died between its two renames', async () => {
    const parent = await emptyFolder();
    const path = join(parent, 'checkpoint');
    await writeFolderAtomic(path, (folder) => writeVersion(folder, 'old'));
    await rename(path, join(parent, '.checkpoint.previous'));
    assert.equal(await recoverFolder(path), true);
    assert.equal(await readVersion(path), 'old');
    assert.deepEqual(await readdir(parent), ['checkpoint']);
    assert.equal(await recoverFolder(join(parent, 'never-written')), false);
  });

  test('clears away an old folder that a dead process did not come to remove', async () => {
    const parent = await emptyFolder();
    const path = join(parent, 'checkpoint');
    await writeFolderAtomic(path, (folder) => writeVersion(folder, 'old'));
    await mkdir(join(parent, '.checkpoint.previous'));
    await writeVersion(join(parent, '.checkpoint.previous'), 'older');
    await writeFolderAtomic(path, (folder) => writeVersion(folder, 'new'));
    assert.equal(await readVersion(path), 'new');
    assert.deepEqual(await readdir(parent), ['checkpoint']);
  });

  test('survives SIGKILL at any moment', { timeout: 60_000 }, async () => {
    const parent = await emptyFolder();
    const path = join(parent, 'checkpoint');
    await writeFolderAtomic(path, (folder) => writeVersion(folder, '0'));
    const script = `
      import { writeFolderAtomic } from ${JSON.stringify(import.meta.resolve('./atomic.ts'))};
      import { mkdir, writeFile } from 'node:fs/promises';
      process.stdout.write('ready');
      for (let i = 1; ; i++) {
        await writeFolderAtomic(${JSON.stringify(path)}, async (folder) => {
          await writeFile(folder + '/a.txt', String(i));
          await mkdir(folder + '/sub');
          await writeFile(folder + '/sub/b.txt', String(i));
        });
      }`;
    for (let round = 0; round < 5; round++) {
      const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(child.stdout, 'data');
      await new Promise((resolve) => setTimeout(resolve, 5 + round * 7));
      child.kill('SIGKILL');
      await once(child, 'exit');
      assert.equal(await recoverFolder(path), true);
      await readVersion(path);
    }
    await writeFolderAtomic(path, (folder) => writeVersion(folder, 'last'));
    assert.deepEqual(await readdir(parent), ['checkpoint']);
  });
});

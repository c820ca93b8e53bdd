/**
 * Entry of the thread that moves bytes between the shared memory and files, one job after another, so
 * that the main thread never waits for a disk while it could compute.
 */

import { fstatSync, ftruncateSync, readSync, writeSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { systemCode } from '../../../core/file-error.ts';
import { SharedMemory } from '../memory.ts';
import { onThreadExit } from '../platform.ts';
import { type FileThreadStart, type Job, queueWord, serveJobs } from './job-queue.ts';

/** One system call moves at most this much. */
const maxCallBytes = 2 ** 30;

function work({ memory, memory64, words, fault }: FileThreadStart): void {
  onThreadExit(() => Atomics.store(words, queueWord.exited, 1));
  const shared = new SharedMemory(memory, memory64);
  let faulty = 0;
  serveJobs(words, (job) => {
    try {
      if (fault?.kind === job.kind && faulty++ === fault.at) return fault.code;
      shared.refresh();
      run(job, shared);
      return undefined;
    } catch (error) {
      return systemCode(error) ?? String(error);
    }
  });
}

function run({ kind, file, address, bytes, position }: Job, memory: SharedMemory): void {
  if (kind === 'truncate') {
    ftruncateSync(file, position);
    return;
  }
  for (let done = 0; done < bytes; ) {
    const count = Math.min(bytes - done, maxCallBytes);
    const view = memory.view(address + done, count);
    const at = position + done;
    const moved =
      kind === 'write' ? writeSync(file, view, 0, count, at) : readSync(file, view, 0, count, at);
    if (moved === 0) throw Object.assign(new RangeError('the file ended early'), { code: 'EIO' });
    done += moved;
  }
  // An open file outlives its name, but a folder that somebody took away is not one to rely on.
  if (fstatSync(file).nlink === 0) throw Object.assign(new RangeError(), { code: 'ENOENT' });
}

work(workerData as FileThreadStart);

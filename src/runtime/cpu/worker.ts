/** Entry of a worker thread: waits for commands in shared memory until it is told to leave. */

import { stopCode, word, workerWord, workerWords } from './control.ts';
import { reportFailure } from './failure.ts';
import { loadAddress, SharedMemory } from './memory.ts';
import { onThreadExit, receiveStart } from './platform.ts';
import { CodeThread } from './thread-code.ts';
import { finishShare, waitForSignal } from './waiting.ts';

function work(): void {
  const start = receiveStart();
  const memory = new SharedMemory(start.memory, start.memory64);
  const { control } = memory;
  const mailbox = word.workers + start.worker * workerWords;
  const signal = mailbox + workerWord.signal;
  onThreadExit(() => Atomics.store(control, mailbox + workerWord.exited, 1));

  const thread = start.worker + 1;
  const codes = new CodeThread(
    memory,
    thread,
    () => {},
    () => {},
  );
  let seen = 0;
  Atomics.add(control, word.ready, 1);
  for (;;) {
    seen = waitForSignal(control, signal, seen);
    const code = control[word.commandCode]!;
    if (code === stopCode) return;
    try {
      codes.catchUp();
      const args = loadAddress(control, word.commandArgs);
      codes.code(code)(args, thread, control[word.commandThreads]!);
    } catch (error) {
      reportFailure(control, thread, -1, error);
    }
    finishShare(control);
  }
}

work();

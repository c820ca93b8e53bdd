/** Other processes of this machine, as far as clearing up after dead ones needs to know of them. */

import { systemCode } from './file-error.ts';

/** Whether a process of this number runs; true when that cannot be told. */
export function isProcessAlive(pid: number): boolean {
  try {
    globalThis.process?.kill(pid, 0); // Signal 0 only asks whether the process is there.
    return true;
  } catch (cause) {
    return systemCode(cause) === 'EPERM';
  }
}

/**
 * Giving the pages of free memory back to the system. WebAssembly has no instruction for it; on Linux
 * madvise does it, through koffi. Where that is not possible the pages stay with the process.
 */

import type { Chunk } from '../heap.ts';
import type { SharedMemory } from './memory.ts';
import { hostPlatform, requirePackage } from './platform.ts';

/** The largest page size in use; only whole pages can go. */
const pageBytes = 65536;

const dontNeed = 4;

/** What `trim` of this memory's allocator does with free chunks. */
export function pageRelease(memory: SharedMemory): (chunks: Iterable<Chunk>) => void {
  let advise: Advise | undefined;
  return (chunks) => {
    advise ??= findAdvise();
    if (advise === undefined) return;
    const base = advise.address(new Uint8Array(memory.buffer));
    for (const { address, bytes, free } of chunks) {
      const begin = Math.ceil(address / pageBytes) * pageBytes;
      const end = Math.floor((address + bytes) / pageBytes) * pageBytes;
      if (free && end > begin) advise.madvise(base + BigInt(begin), end - begin, dontNeed);
    }
  };
}

interface Advise {
  address(view: Uint8Array): bigint;
  /** Pages read as zero afterwards, until they are written again. */
  madvise(address: bigint, bytes: number, advice: number): number;
}

function findAdvise(): Advise | undefined {
  const koffi = requirePackage('koffi') as
    | {
        load(path: string): {
          func(name: string, result: string, parameters: string[]): Advise['madvise'];
        };
        address: Advise['address'];
      }
    | undefined;
  if (koffi === undefined || hostPlatform().system !== 'linux') return undefined;
  try {
    const libc = koffi.load('libc.so.6');
    const madvise = libc.func('madvise', 'int', ['void *', 'size_t', 'int']);
    return { address: koffi.address, madvise };
  } catch {
    return undefined;
  }
}

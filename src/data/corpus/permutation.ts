/**
 * A random order of 0..count-1 that needs no list: element i is computed when asked for. A Feistel
 * network over the smallest even number of bits that holds `count`, whose round function is Philox,
 * permutes 0..2^bits-1; results outside the range are put through again (cycle walking), which happens
 * fewer than 3 times on average. Source: Black and Rogaway, "Ciphers with arbitrary finite domains" (CT-RSA 2002).
 */

import { ArgumentError } from '../../core/errors.ts';
import { philox } from '../../core/random.ts';

/**
 * Place `index` of the order number `epoch` that belongs to `seed`: a bijection of 0..count-1 for
 * each pair of them. `seed` and `epoch` are taken modulo 2^32. Throws ArgumentError.
 */
export function permutedIndex(index: number, count: number, seed: number, epoch: number): number {
  if (!Number.isInteger(index) || index < 0 || index >= count || count > maxCount) {
    throw new ArgumentError(
      `permutedIndex: index must be an integer from 0 to count - 1, and count at most 2^48 (got ${index} of ${count}).`,
      { index, count },
    );
  }
  if (count === 1) return 0;
  const halfBits = Math.ceil(Math.log2(count) / 2);
  // Math.log2 may round down just above a power of two.
  const half = 4 ** halfBits < count ? 2 ** (halfBits + 1) : 2 ** halfBits;
  let value = index;
  do value = feistel(value, half, seed, epoch);
  while (value >= count);
  return value;
}

const maxCount = 2 ** 48;
const rounds = 8;
const words = new Uint32Array(4);

function feistel(value: number, half: number, seed: number, epoch: number): number {
  let left = Math.floor(value / half);
  let right = value % half;
  for (let round = 0; round < rounds; round++) {
    philox(right, round, epoch, domain, seed, 0, words);
    const mixed = left ^ ((words[0] ?? 0) & (half - 1));
    left = right;
    right = mixed;
  }
  return left * half + right;
}

/** Keeps these draws apart from those of tensors that use the same seed. */
const domain = 0x73687566;

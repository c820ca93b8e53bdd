/**
 * Philox 4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy
 * as 1, 2, 3" (SC 2011). A draw is a pure function of key and counter, so a recompute replays it
 * by construction. This scalar version is the definition that every backend's kernel must equal.
 *
 * How tensors use it: element i of draw number d of a generator with state [seedLo, seedHi, offsetLo,
 * offsetHi] is word (i mod 4) of philox(key = [seedLo, seedHi],
 * counter = [i div 4, 0, offset + d (low word), offset + d (high word)]).
 */

/** Words of one generator state tensor: seedLo, seedHi, offsetLo, offsetHi (uint32). */
export const randomStateWords = 4;

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** Four uint32 words of Philox 4x32-10, written to `out`. */
export function philox(
  c0: number,
  c1: number,
  c2: number,
  c3: number,
  k0: number,
  k1: number,
  out: Uint32Array,
): void {
  for (let round = 0; round < 10; round++) {
    const lo0 = Math.imul(M0, c0);
    const hi0 = mulHigh(M0, c0);
    const lo1 = Math.imul(M1, c2);
    const hi1 = mulHigh(M1, c2);
    c0 = hi1 ^ c1 ^ k0;
    c1 = lo1;
    c2 = hi0 ^ c3 ^ k1;
    c3 = lo0;
    k0 = (k0 + W0) | 0;
    k1 = (k1 + W1) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** A uint32 word as a float32 in [0, 1): its top 24 bits over 2^24, exact in float32. */
export function unitFloat(word: number): number {
  return (word >>> 8) * 2 ** -24;
}

function mulHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = aLow * bLow;
  const middle = aHigh * bLow + (low >>> 16);
  const middle2 = aLow * bHigh + (middle & 0xffff);
  // No sum here passes 2^53, and every carry is taken with floor, so doubles hold them exactly.
  return (aHigh * bHigh + Math.floor(middle / 65536) + Math.floor(middle2 / 65536)) | 0;
}

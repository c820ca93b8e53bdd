/**
 * Philox 4x32-10 on vectors: four counters at a time, one per lane. Equal to core/random.ts, whose
 * header has the source. `blockWords` makes the four words of four neighbouring blocks, 16 values in
 * element order; `word` makes one word per lane for arbitrary element indices.
 */

import type { I32, I64, Var } from '../scalars.ts';
import { I32x4, I64x2 } from '../vectors.ts';
import type { Lanes } from './lanes.ts';

/** Key and upper half of the counter of one draw, in every lane. */
export interface PhiloxStream {
  readonly key0: I32x4;
  readonly key1: I32x4;
  readonly counter2: I32x4;
  readonly counter3: I32x4;
}

const multiplier0 = 0xd2511f53;
const multiplier1 = 0xcd9e8d57;
const weyl0 = 0x9e3779b9;
const weyl1 = 0xbb67ae85;

/** The stream of draw number `draw` in a generator state given as four uniform vectors. */
export function philoxStream(
  l: Lanes,
  state: readonly [I32x4, I32x4, I32x4, I32x4],
  draw: number,
): PhiloxStream {
  const [key0, key1, low, high] = state;
  const offset: Var<I64> = l.f.let(
    low.lane(0).toI64U().or(high.lane(0).toI64U().shl(32)).add(draw),
  );
  return {
    key0: l.hold(key0),
    key1: l.hold(key1),
    counter2: l.hold(I32x4.splat(offset.toI32())),
    counter3: l.hold(I32x4.splat(offset.shrU(32).toI32())),
  };
}

/** Word (index mod 4) of block (index div 4), for each lane's own index. */
export function philoxWord(l: Lanes, stream: PhiloxStream, index: I32x4): I32x4 {
  index = l.hold(index);
  const [w0, w1, w2, w3] = rounds(l, stream, index.shrU(2));
  const odd = l.hold(index.shl(31).shrS(31));
  const upper = l.hold(index.shl(30).shrS(31));
  const low = l.hold(l.select(odd, w1, w0));
  const high = l.hold(l.select(odd, w3, w2));
  return l.select(upper, high, low);
}

/** The 16 words of blocks block .. block + 3 in element order; `block` is a scalar. */
export function philoxBlocks(l: Lanes, stream: PhiloxStream, block: I32): readonly I32x4[] {
  const [w0, w1, w2, w3] = rounds(l, stream, I32x4.splat(block).add(l.i32Lanes([0, 1, 2, 3])));
  // Transpose: lane = block, vector = word becomes vector = block, lane = word.
  const a = l.hold(w0.shuffle(w1, [0, 4, 1, 5]));
  const b = l.hold(w2.shuffle(w3, [0, 4, 1, 5]));
  const c = l.hold(w0.shuffle(w1, [2, 6, 3, 7]));
  const d = l.hold(w2.shuffle(w3, [2, 6, 3, 7]));
  return [
    a.shuffle(b, [0, 1, 4, 5]),
    a.shuffle(b, [2, 3, 6, 7]),
    c.shuffle(d, [0, 1, 4, 5]),
    c.shuffle(d, [2, 3, 6, 7]),
  ].map((words) => l.hold(words));
}

type Words = readonly [I32x4, I32x4, I32x4, I32x4];

function rounds(l: Lanes, stream: PhiloxStream, counter0: I32x4): Words {
  const c0 = l.temporary(counter0);
  const c1 = l.temporary(I32x4.of(0));
  const c2 = l.temporary(stream.counter2);
  const c3 = l.temporary(stream.counter3);
  const k0 = l.temporary(stream.key0);
  const k1 = l.temporary(stream.key1);
  const low0 = l.temporary(I64x2.of(0));
  const high0 = l.temporary(I64x2.of(0));
  const low1 = l.temporary(I64x2.of(0));
  const high1 = l.temporary(I64x2.of(0));
  for (let round = 0; round < 10; round++) {
    low0.set(I64x2.extmulLowU(c0, l.i32(multiplier0)));
    high0.set(I64x2.extmulHighU(c0, l.i32(multiplier0)));
    low1.set(I64x2.extmulLowU(c2, l.i32(multiplier1)));
    high1.set(I64x2.extmulHighU(c2, l.i32(multiplier1)));
    c0.set(upperWords(low1, high1).xor(c1).xor(k0));
    c1.set(lowerWords(low1, high1));
    c2.set(upperWords(low0, high0).xor(c3).xor(k1));
    c3.set(lowerWords(low0, high0));
    if (round < 9) {
      k0.set(k0.add(l.i32(weyl0)));
      k1.set(k1.add(l.i32(weyl1)));
    }
  }
  return [c0, c1, c2, c3];
}

/** The low 32 bits of four 64-bit products. */
function lowerWords(low: I64x2, high: I64x2): I32x4 {
  return low.as(I32x4).shuffle(high.as(I32x4), [0, 2, 4, 6]);
}

function upperWords(low: I64x2, high: I64x2): I32x4 {
  return low.as(I32x4).shuffle(high.as(I32x4), [1, 3, 5, 7]);
}

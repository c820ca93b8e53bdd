/**
 * Loads and stores of up to four elements of any dtype, at any stride, from and to four lanes. Narrow
 * floats widen exactly on load and round to nearest even on store. Lanes beyond `lanes` are loaded as
 * zero (or as copies) and never stored.
 */

import type { DType } from '../../../core/dtype.ts';
import { bytesPerElement } from '../../../core/dtype.ts';
import type { Ptr } from '../pointer.ts';
import { type F32x4, I8x16, I16x8, I32x4 } from '../vectors.ts';
import { asF32, asI32, type Lane4, type Lanes } from './lanes.ts';

/** Where the elements of a group of lanes lie. */
export interface ElementRun {
  readonly at: Ptr;
  /** Bytes from `at` to the first element. */
  readonly offset: number;
  /** Elements between neighbouring lanes; 0 for one element in all lanes. */
  readonly stride: number;
  readonly lanes: number;
}

/** The elements widened to their compute type. */
export function loadElements(l: Lanes, dtype: DType, run: ElementRun): Lane4 {
  const raw = loadRaw(dtype, run);
  switch (dtype) {
    case 'float32':
      return asF32(raw);
    case 'float16':
      return float16ToFloat32(l, raw);
    case 'bfloat16':
      return asF32(raw.shl(16));
    case 'bool':
      return raw.ne(I32x4.of(0));
    case 'int32':
    case 'uint32':
    case 'int8':
      return raw;
  }
}

/** Rounds or wraps the lanes to `dtype` and writes the first `run.lanes` of them. */
export function storeElements(l: Lanes, dtype: DType, run: ElementRun, value: Lane4): void {
  const { f } = l;
  const bytes = bytesPerElement(dtype);
  const raw = encode(l, dtype, value);
  if (run.stride === 1 && run.lanes === 4) {
    const [at, offset] = address(run, 0, bytes);
    if (bytes === 4) f.store(at, raw, offset);
    else if (bytes === 2) f.storeLow(at, packed16(raw), offset);
    else f.storeLane(at, packed8(raw).as(I32x4), 0, offset);
    return;
  }
  const held = run.lanes === 1 ? raw : l.hold(raw);
  for (let lane = 0; lane < run.lanes; lane++) {
    const [at, offset] = address(run, lane, bytes);
    if (bytes === 4) f.storeLane(at, held, lane, offset);
    else if (bytes === 2) f.storeLane(at, held.as(I16x8), 2 * lane, offset);
    else f.storeLane(at, held.as(I8x16), 4 * lane, offset);
  }
}

/** The stored bits of each element, zero- or sign-extended to 32. */
function loadRaw(dtype: DType, run: ElementRun): I32x4 {
  const bytes = bytesPerElement(dtype);
  const [at, offset] = address(run, 0, bytes);
  if (run.stride === 0) {
    if (bytes === 4) return at.i32x4Splat(offset);
    return I32x4.splat(loadNarrow(dtype, at, offset));
  }
  if (run.stride === 1 && run.lanes === 4) {
    if (bytes === 4) return at.i32x4(offset);
    if (bytes === 2) return at.i32x4FromI16U(offset);
    const low = at.i32x4Zero(offset).as(I8x16);
    if (dtype === 'int8') return I32x4.extendLowS(I16x8.extendLowS(low));
    return I32x4.extendLowU(I16x8.extendLowU(low));
  }
  if (bytes === 4 && run.stride === 1 && run.lanes >= 2) {
    const pair = at.i32x4Low(offset);
    return run.lanes === 2 ? pair : at.lane(pair, 2, offset + 8);
  }
  let lanes = bytes === 4 ? at.i32x4Zero(offset) : I32x4.splat(loadNarrow(dtype, at, offset));
  for (let lane = 1; lane < run.lanes; lane++) {
    const [from, shift] = address(run, lane, bytes);
    lanes =
      bytes === 4
        ? from.lane(lanes, lane, shift)
        : lanes.withLane(lane, loadNarrow(dtype, from, shift));
  }
  return lanes;
}

function loadNarrow(dtype: DType, at: Ptr, offset: number) {
  if (bytesPerElement(dtype) === 2) return at.i16U(offset);
  return dtype === 'int8' ? at.i8S(offset) : at.i8U(offset);
}

/** Each lane as it is after being stored in `dtype` and loaded again. */
export function roundLanes(l: Lanes, dtype: 'float16' | 'bfloat16', x: F32x4): F32x4 {
  const bits = encode(l, dtype, x);
  return dtype === 'float16' ? float16ToFloat32(l, bits) : asF32(bits.shl(16));
}

/** Base and non-negative constant offset of one lane's element. */
function address(run: ElementRun, lane: number, bytes: number): readonly [Ptr, number] {
  const offset = run.offset + lane * run.stride * bytes;
  return offset >= 0 ? [run.at, offset] : [run.at.add(offset), 0];
}

/** The bits to store, in the low part of each lane. */
function encode(l: Lanes, dtype: DType, value: Lane4): I32x4 {
  switch (dtype) {
    case 'float16':
      return float32ToFloat16(l, asI32(value));
    case 'bfloat16':
      return float32ToBfloat16(l, asI32(value));
    case 'bool':
      return asI32(value).and(l.i32(1));
    default:
      return asI32(value);
  }
}

/** Low halves of four lanes side by side, for bits up to 16 wide. */
function packed16(raw: I32x4): I16x8 {
  return I16x8.narrowU(raw, raw);
}

/** Low bytes of four lanes side by side. */
function packed8(raw: I32x4): I8x16 {
  const bytes = raw.as(I8x16);
  return bytes.shuffleBytes(bytes, [0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12]);
}

/** Exact, with subnormals, infinities and NaN. */
function float16ToFloat32(l: Lanes, half: I32x4): F32x4 {
  half = l.hold(half);
  const magnitude = l.hold(half.and(l.i32(0x7fff)));
  // Moves the fields into place; the product fixes the exponent bias and normalizes subnormals.
  const scaled = asI32(asF32(magnitude.shl(13)).mul(l.f32(2 ** 112)));
  const special = magnitude.gtS(l.i32(0x7bff)).and(l.i32(0x7f800000));
  const sign = half.and(l.i32(0x8000)).shl(16);
  return asF32(scaled.or(special).or(sign));
}

/** Bits of the nearest float16, ties to even; NaN stays NaN. */
function float32ToFloat16(l: Lanes, bits: I32x4): I32x4 {
  bits = l.hold(bits);
  const magnitude = l.hold(bits.and(l.i32(0x7fffffff)));
  // Subnormal results: adding 1/2 makes the sum's rounding that of the result.
  const subnormal = asI32(asF32(magnitude).add(l.f32(0.5))).sub(asI32(l.f32(0.5)));
  // Normal results: rebias, add just under half a unit, plus one more when the result would be odd.
  const odd = magnitude.shrU(13).and(l.i32(1));
  const normal = magnitude
    .add(l.i32(((15 - 127) << 23) + 0xfff))
    .add(odd)
    .shrU(13);
  const finite = l.hold(
    l.select(magnitude.ltS(l.i32(113 << 23)), l.hold(subnormal), l.hold(normal)),
  );
  const infinite = l.hold(finite.minS(l.i32(0x7c00)));
  const nan = magnitude.gtS(l.i32(0x7f800000));
  const value = l.select(l.hold(nan), l.i32(0x7e00), infinite);
  return value.or(bits.shrU(16).and(l.i32(0x8000)));
}

/** Bits of the nearest bfloat16, ties to even; NaN stays NaN. */
function float32ToBfloat16(l: Lanes, bits: I32x4): I32x4 {
  bits = l.hold(bits);
  const top = l.hold(bits.shrU(16));
  const rounded = bits
    .add(l.i32(0x7fff))
    .add(top.and(l.i32(1)))
    .shrU(16);
  const nan = bits.and(l.i32(0x7fffffff)).gtS(l.i32(0x7f800000));
  return l.select(l.hold(nan), l.hold(top.or(l.i32(0x40))), l.hold(rounded));
}

/** A tensor on the host: raw little-endian bytes, row-major, with shape and dtype. */

import { type DType, bytesPerElement } from './dtype.ts';
import { ShapeError } from './errors.ts';
import { type Shape, formatShape, numElements } from './shape.ts';

export interface HostTensor {
  readonly dtype: DType;
  readonly shape: Shape;
  /** Exactly numElements(shape) * bytesPerElement(dtype) bytes. */
  readonly data: Uint8Array;
}

export type NumberArray =
  | readonly number[]
  | Float32Array
  | Float64Array
  | Int32Array
  | Uint32Array
  | Int8Array
  | Uint8Array;

/** Packs `values` (row-major) into a HostTensor; floats round to nearest even, ints truncate. */
export function hostTensor(values: NumberArray, shape: Shape, dtype: DType): HostTensor {
  const count = numElements(shape);
  if (values.length !== count) {
    throw new ShapeError(
      `hostTensor: ${values.length} values do not fill shape ${formatShape(shape)} (${count} elements). ` +
        'Give one value per element.',
      { shape, length: values.length },
    );
  }
  const data = new Uint8Array(count * bytesPerElement(dtype));
  const write = writers[dtype](data.buffer);
  for (let i = 0; i < count; i++) write(i, values[i] ?? 0);
  return { dtype, shape: [...shape], data };
}

/** The elements as numbers; float32 and ints exactly, 16-bit floats widened. */
export function hostValues(tensor: HostTensor): Float64Array {
  const count = numElements(tensor.shape);
  const bytes = tensor.data.slice();
  const read = readers[tensor.dtype](bytes.buffer);
  const out = new Float64Array(count);
  for (let i = 0; i < count; i++) out[i] = read(i);
  return out;
}

/** Bits of the bfloat16 nearest to `value`, ties to even; NaN stays NaN. */
export function toBfloat16Bits(value: number): number {
  scratchFloat[0] = value;
  const bits = scratchBits[0] ?? 0;
  if (Number.isNaN(value)) return ((bits >>> 16) | 0x40) & 0xffff;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function fromBfloat16Bits(bits: number): number {
  scratchBits[0] = bits << 16;
  return scratchFloat[0] ?? 0;
}

/** Bits of the float16 nearest to the float32 `value`, ties to even. */
export function toFloat16Bits(value: number): number {
  scratchFloat[0] = value;
  const bits = scratchBits[0] ?? 0;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520 and above round to infinity
  if (magnitude < 0x38800000) {
    // Subnormal: let float32 addition do the rounding at the scale of the smallest float16 step.
    scratchBits[0] = magnitude;
    scratchFloat[0] = (scratchFloat[0] ?? 0) + 0.5;
    return sign | ((scratchBits[0] ?? 0) - 0x3f000000);
  }
  return sign | ((magnitude + 0xfff + ((magnitude >>> 13) & 1) - 0x38000000) >>> 13);
}

export function fromFloat16Bits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

type Write = (index: number, value: number) => void;
type Read = (index: number) => number;

const writers: Record<DType, (buffer: ArrayBufferLike) => Write> = {
  float32: (buffer) => store(new Float32Array(buffer)),
  float16: (buffer) => storeBits(new Uint16Array(buffer), toFloat16Bits),
  bfloat16: (buffer) => storeBits(new Uint16Array(buffer), toBfloat16Bits),
  int32: (buffer) => store(new Int32Array(buffer)),
  uint32: (buffer) => store(new Uint32Array(buffer)),
  int8: (buffer) => store(new Int8Array(buffer)),
  bool: (buffer) => storeBits(new Uint8Array(buffer), (value) => (value !== 0 ? 1 : 0)),
};

const readers: Record<DType, (buffer: ArrayBufferLike) => Read> = {
  float32: (buffer) => load(new Float32Array(buffer)),
  float16: (buffer) => loadBits(new Uint16Array(buffer), fromFloat16Bits),
  bfloat16: (buffer) => loadBits(new Uint16Array(buffer), fromBfloat16Bits),
  int32: (buffer) => load(new Int32Array(buffer)),
  uint32: (buffer) => load(new Uint32Array(buffer)),
  int8: (buffer) => load(new Int8Array(buffer)),
  bool: (buffer) => load(new Uint8Array(buffer)),
};

interface Writable {
  [index: number]: number;
}

function store(view: Writable): Write {
  return (index, value) => {
    view[index] = value;
  };
}

function storeBits(view: Writable, encode: (value: number) => number): Write {
  return (index, value) => {
    view[index] = encode(value);
  };
}

function load(view: Writable): Read {
  return (index) => view[index] ?? 0;
}

function loadBits(view: Writable, decode: (bits: number) => number): Read {
  return (index) => decode(view[index] ?? 0);
}

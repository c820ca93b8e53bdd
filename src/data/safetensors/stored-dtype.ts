/**
 * Element types that a safetensors file can hold, and how each becomes a Retune dtype. Types that
 * Retune computes with are read as they lie; wider and odd ones are converted, with a range check
 * where the target is narrower.
 */

import { type DType, dtypeNames, dtypes } from '../../core/dtype.ts';

export interface StoredDType {
  /** Bytes of one element in the file. */
  readonly bytes: number;
  /** What `read` returns; undefined for types that Retune cannot read. */
  readonly dtype: DType | undefined;
  /** Converts `count` elements; absent when the bytes are the same on both sides. */
  readonly convert?: (bytes: Uint8Array, count: number) => Conversion;
}

/** The converted bytes, or the first element that the target dtype cannot hold. */
export type Conversion =
  | { readonly data: Uint8Array }
  | { readonly badIndex: number; readonly badValue: string };

/** By the spelling in the file's header. */
export const storedDTypes: ReadonlyMap<string, StoredDType> = new Map<string, StoredDType>([
  ...dtypeNames.map((dtype): [string, StoredDType] => [
    dtypes[dtype].safetensors,
    { bytes: dtypes[dtype].bytes, dtype },
  ]),
  ['BOOL', { bytes: 1, dtype: 'bool', convert: checkBool }],
  ['F64', { bytes: 8, dtype: 'float32', convert: fromFloat64 }],
  ['I64', { bytes: 8, dtype: 'int32', convert: fromInt64 }],
  ['U64', { bytes: 8, dtype: 'uint32', convert: fromUint64 }],
  ['I16', { bytes: 2, dtype: 'int32', convert: fromInt16 }],
  ['U16', { bytes: 2, dtype: 'uint32', convert: fromUint16 }],
  ['U8', { bytes: 1, dtype: 'uint32', convert: fromUint8 }],
  ['F8_E4M3', { bytes: 1, dtype: undefined }],
  ['F8_E5M2', { bytes: 1, dtype: undefined }],
  ['F8_E8M0', { bytes: 1, dtype: undefined }],
  ['C64', { bytes: 8, dtype: undefined }],
]);

/**
 * The order in which the reference writer lays out dtypes: widest alignment first. Every tensor then
 * starts at a multiple of its own element size, since the data starts at a multiple of 8.
 */
export const layoutOrder: readonly DType[] = [
  'float32',
  'uint32',
  'int32',
  'bfloat16',
  'float16',
  'int8',
  'bool',
];

function checkBool(bytes: Uint8Array): Conversion {
  const bad = bytes.findIndex((byte) => byte > 1);
  return bad < 0 ? { data: bytes } : { badIndex: bad, badValue: String(bytes[bad]) };
}

function fromFloat64(bytes: Uint8Array, count: number): Conversion {
  const view = viewOf(bytes);
  const out = new Float32Array(count);
  for (let i = 0; i < count; i++) out[i] = view.getFloat64(i * 8, true);
  return { data: bytesOf(out) };
}

function fromInt64(bytes: Uint8Array, count: number): Conversion {
  const view = viewOf(bytes);
  const out = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const low = view.getInt32(i * 8, true);
    if (view.getInt32(i * 8 + 4, true) !== low >> 31) {
      return { badIndex: i, badValue: String(view.getBigInt64(i * 8, true)) };
    }
    out[i] = low;
  }
  return { data: bytesOf(out) };
}

function fromUint64(bytes: Uint8Array, count: number): Conversion {
  const view = viewOf(bytes);
  const out = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    if (view.getUint32(i * 8 + 4, true) !== 0) {
      return { badIndex: i, badValue: String(view.getBigUint64(i * 8, true)) };
    }
    out[i] = view.getUint32(i * 8, true);
  }
  return { data: bytesOf(out) };
}

function fromInt16(bytes: Uint8Array, count: number): Conversion {
  const view = viewOf(bytes);
  return {
    data: bytesOf(Int32Array.from({ length: count }, (_, i) => view.getInt16(i * 2, true))),
  };
}

function fromUint16(bytes: Uint8Array, count: number): Conversion {
  const view = viewOf(bytes);
  return {
    data: bytesOf(Uint32Array.from({ length: count }, (_, i) => view.getUint16(i * 2, true))),
  };
}

function fromUint8(bytes: Uint8Array): Conversion {
  return { data: bytesOf(Uint32Array.from(bytes)) };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function bytesOf(array: Float32Array | Int32Array | Uint32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

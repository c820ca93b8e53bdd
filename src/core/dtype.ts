/**
 * Element types. Float16 and bfloat16 are storage types: arithmetic on them happens in float32 and
 * rounds once, to nearest even, when the result is stored.
 */

export type DType = 'float32' | 'float16' | 'bfloat16' | 'int32' | 'uint32' | 'int8' | 'bool';

export type DTypeKind = 'float' | 'int' | 'bool';

export interface DTypeInfo {
  readonly bytes: number;
  readonly kind: DTypeKind;
  /** The safetensors spelling of this dtype. */
  readonly safetensors: string;
}

export const dtypes: Readonly<Record<DType, DTypeInfo>> = {
  float32: { bytes: 4, kind: 'float', safetensors: 'F32' },
  float16: { bytes: 2, kind: 'float', safetensors: 'F16' },
  bfloat16: { bytes: 2, kind: 'float', safetensors: 'BF16' },
  int32: { bytes: 4, kind: 'int', safetensors: 'I32' },
  uint32: { bytes: 4, kind: 'int', safetensors: 'U32' },
  int8: { bytes: 1, kind: 'int', safetensors: 'I8' },
  bool: { bytes: 1, kind: 'bool', safetensors: 'BOOL' },
};

export const dtypeNames = Object.keys(dtypes) as readonly DType[];

export function isDType(name: string): name is DType {
  return Object.hasOwn(dtypes, name);
}

/** Bytes of one element of `dtype`. */
export function bytesPerElement(dtype: DType): number {
  return dtypes[dtype].bytes;
}

export function isFloat(dtype: DType): boolean {
  return dtypes[dtype].kind === 'float';
}

/** Promotion order of PyTorch restricted to these dtypes (torch.promote_types). */
export function promoteDTypes(a: DType, b: DType): DType {
  if (a === b) return a;
  const ka = dtypes[a].kind;
  const kb = dtypes[b].kind;
  if (ka !== kb) return kindRank[ka] > kindRank[kb] ? a : b;
  if (ka === 'float') return 'float32'; // float16 with bfloat16, or either with float32
  if (a === 'int8') return b === 'uint32' ? 'int32' : b;
  if (b === 'int8') return a === 'uint32' ? 'int32' : a;
  return 'int32';
}

const kindRank: Readonly<Record<DTypeKind, number>> = { bool: 0, int: 1, float: 2 };

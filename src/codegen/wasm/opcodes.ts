/**
 * Opcode numbers of the instructions that the value classes and the function builder emit.
 * Plain instructions are one byte; SIMD (0xfd), atomic (0xfe) and other (0xfc) ones have a prefix.
 * Source: the WebAssembly core specification 3.0 and the threads proposal.
 */

export const valueTypes = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b } as const;

export type ValueType = keyof typeof valueTypes;

export const control = {
  unreachable: 0x00,
  block: 0x02,
  loop: 0x03,
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  br: 0x0c,
  brIf: 0x0d,
  return: 0x0f,
  call: 0x10,
  drop: 0x1a,
  select: 0x1b,
  localGet: 0x20,
  localSet: 0x21,
  localTee: 0x22,
  memorySize: 0x3f,
  i32Const: 0x41,
  i64Const: 0x42,
  f32Const: 0x43,
  f64Const: 0x44,
  emptyBlockType: 0x40,
} as const;

/** Offsets shared by i32 and i64 arithmetic, added to the type's first opcode. */
export const integerArithmetic = {
  clz: 0,
  ctz: 1,
  popcnt: 2,
  add: 3,
  sub: 4,
  mul: 5,
  divS: 6,
  divU: 7,
  remS: 8,
  remU: 9,
  and: 10,
  or: 11,
  xor: 12,
  shl: 13,
  shrS: 14,
  shrU: 15,
  rotl: 16,
  rotr: 17,
} as const;
export const integerArithmeticBase = { i32: 0x67, i64: 0x79 } as const;

/** Offsets shared by i32 and i64 comparisons. */
export const integerCompare = {
  eqz: 0,
  eq: 1,
  ne: 2,
  ltS: 3,
  ltU: 4,
  gtS: 5,
  gtU: 6,
  leS: 7,
  leU: 8,
  geS: 9,
  geU: 10,
} as const;
export const integerCompareBase = { i32: 0x45, i64: 0x50 } as const;

/** Offsets shared by f32 and f64 arithmetic. */
export const floatArithmetic = {
  abs: 0,
  neg: 1,
  ceil: 2,
  floor: 3,
  trunc: 4,
  nearest: 5,
  sqrt: 6,
  add: 7,
  sub: 8,
  mul: 9,
  div: 10,
  min: 11,
  max: 12,
  copysign: 13,
} as const;
export const floatArithmeticBase = { f32: 0x8b, f64: 0x99 } as const;

/** Offsets shared by f32 and f64 comparisons. */
export const floatCompare = { eq: 0, ne: 1, lt: 2, gt: 3, le: 4, ge: 5 } as const;
export const floatCompareBase = { f32: 0x5b, f64: 0x61 } as const;

export const convert = {
  i32WrapI64: [0xa7],
  i64ExtendI32S: [0xac],
  i64ExtendI32U: [0xad],
  f32ConvertI32S: [0xb2],
  f32ConvertI32U: [0xb3],
  f32ConvertI64S: [0xb4],
  f32ConvertI64U: [0xb5],
  f32DemoteF64: [0xb6],
  f64ConvertI32S: [0xb7],
  f64ConvertI32U: [0xb8],
  f64ConvertI64S: [0xb9],
  f64ConvertI64U: [0xba],
  f64PromoteF32: [0xbb],
  i32ReinterpretF32: [0xbc],
  i64ReinterpretF64: [0xbd],
  f32ReinterpretI32: [0xbe],
  f64ReinterpretI64: [0xbf],
  i32Extend8S: [0xc0],
  i32Extend16S: [0xc1],
  i64Extend8S: [0xc2],
  i64Extend16S: [0xc3],
  i64Extend32S: [0xc4],
  i32TruncSatF32S: [0xfc, 0],
  i32TruncSatF32U: [0xfc, 1],
  i32TruncSatF64S: [0xfc, 2],
  i32TruncSatF64U: [0xfc, 3],
  i64TruncSatF32S: [0xfc, 4],
  i64TruncSatF32U: [0xfc, 5],
  i64TruncSatF64S: [0xfc, 6],
  i64TruncSatF64U: [0xfc, 7],
} as const;

/** Memory instructions: opcode and natural alignment (log2 of bytes). */
export const memory = {
  i32Load: [[0x28], 2],
  i64Load: [[0x29], 3],
  f32Load: [[0x2a], 2],
  f64Load: [[0x2b], 3],
  i32Load8S: [[0x2c], 0],
  i32Load8U: [[0x2d], 0],
  i32Load16S: [[0x2e], 1],
  i32Load16U: [[0x2f], 1],
  i32Store: [[0x36], 2],
  i64Store: [[0x37], 3],
  f32Store: [[0x38], 2],
  f64Store: [[0x39], 3],
  i32Store8: [[0x3a], 0],
  i32Store16: [[0x3b], 1],
  v128Load: [[0xfd, 0], 4],
  v128Load8x8S: [[0xfd, 1], 3],
  v128Load8x8U: [[0xfd, 2], 3],
  v128Load16x4S: [[0xfd, 3], 3],
  v128Load16x4U: [[0xfd, 4], 3],
  v128Load32x2S: [[0xfd, 5], 3],
  v128Load32x2U: [[0xfd, 6], 3],
  v128Load8Splat: [[0xfd, 7], 0],
  v128Load16Splat: [[0xfd, 8], 1],
  v128Load32Splat: [[0xfd, 9], 2],
  v128Load64Splat: [[0xfd, 10], 3],
  v128Store: [[0xfd, 11], 4],
  v128Load8Lane: [[0xfd, 84], 0],
  v128Load16Lane: [[0xfd, 85], 1],
  v128Load32Lane: [[0xfd, 86], 2],
  v128Load64Lane: [[0xfd, 87], 3],
  v128Store8Lane: [[0xfd, 88], 0],
  v128Store16Lane: [[0xfd, 89], 1],
  v128Store32Lane: [[0xfd, 90], 2],
  v128Store64Lane: [[0xfd, 91], 3],
  v128Load32Zero: [[0xfd, 92], 2],
  v128Load64Zero: [[0xfd, 93], 3],
  atomicNotify: [[0xfe, 0x00], 2],
  atomicWait32: [[0xfe, 0x01], 2],
  atomicWait64: [[0xfe, 0x02], 3],
  i32AtomicLoad: [[0xfe, 0x10], 2],
  i64AtomicLoad: [[0xfe, 0x11], 3],
  i32AtomicStore: [[0xfe, 0x17], 2],
  i64AtomicStore: [[0xfe, 0x18], 3],
} as const;

export type MemoryInstruction = keyof typeof memory;

/** Read-modify-write atomics: the i32 opcode; the i64 one follows it. */
export const atomicRmw = {
  add: 0x1e,
  sub: 0x25,
  and: 0x2c,
  or: 0x33,
  xor: 0x3a,
  xchg: 0x41,
  cmpxchg: 0x48,
} as const;

export type AtomicRmw = keyof typeof atomicRmw;

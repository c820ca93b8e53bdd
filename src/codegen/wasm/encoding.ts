/**
 * Bytes of the WebAssembly binary format: LEB128 integers, IEEE floats, names and sections.
 * `Code` is a rope of bytes, so that expressions can be nested without copying; `flatten` turns
 * it into plain bytes once, when a function is sealed.
 */

import { invariant } from '../../core/errors.ts';

export type Code = readonly (number | Code)[];

/** The one-byte encodings, shared: most immediates are small. */
const shortLebs = Array.from({ length: 128 }, (_, value) => [value]);

/** Unsigned LEB128 of an integer in [0, 2^53) or of a bigint in [0, 2^64). */
export function unsignedLeb(value: number | bigint): readonly number[] {
  const known = typeof value === 'number' ? shortLebs[value] : undefined;
  if (known) return known;
  let rest = BigInt(value);
  invariant(rest >= 0n, () => `unsignedLeb: negative value ${value}`);
  const bytes: number[] = [];
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest === 0n ? low : low | 0x80);
  } while (rest !== 0n);
  return bytes;
}

/** Signed LEB128. Values are not range-checked here: see i32Leb and i64Leb. */
export function signedLeb(value: number | bigint): number[] {
  let rest = BigInt(value);
  const bytes: number[] = [];
  for (;;) {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    const signBit = (low & 0x40) !== 0;
    if ((rest === 0n && !signBit) || (rest === -1n && signBit)) {
      bytes.push(low);
      return bytes;
    }
    bytes.push(low | 0x80);
  }
}

/** The immediate of i32.const; accepts the signed and the unsigned reading of 32 bits. */
export function i32Leb(value: number): number[] {
  invariant(
    Number.isInteger(value) && value >= -(2 ** 31) && value < 2 ** 32,
    () => `i32Leb: ${value} is not a 32-bit integer`,
  );
  return signedLeb(value | 0);
}

/** The immediate of i64.const; accepts the signed and the unsigned reading of 64 bits. */
export function i64Leb(value: number | bigint): number[] {
  const wide = BigInt(value);
  invariant(
    wide >= -(2n ** 63n) && wide < 2n ** 64n,
    () => `i64Leb: ${value} is not a 64-bit integer`,
  );
  return signedLeb(BigInt.asIntN(64, wide));
}

/** Little-endian bytes of a float32. A NaN becomes the canonical one. */
export function f32Bytes(value: number): number[] {
  return [...new Uint8Array(new Float32Array([value]).buffer)];
}

/** Little-endian bytes of a float64. */
export function f64Bytes(value: number): number[] {
  return [...new Uint8Array(new Float64Array([value]).buffer)];
}

/** Little-endian bytes of a 32-bit integer, signed or unsigned. */
export function i32Bytes(value: number): number[] {
  return [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, (value >>> 24) & 255];
}

/** A length-prefixed UTF-8 name. */
export function nameBytes(name: string): number[] {
  const bytes = new TextEncoder().encode(name);
  return [...unsignedLeb(bytes.length), ...bytes];
}

/** A length-prefixed vector of already encoded items. */
export function vectorBytes(items: readonly Code[]): Code {
  return [unsignedLeb(items.length), ...items];
}

/** A section: id, byte length, payload. */
export function sectionBytes(id: number, payload: Code): Code {
  const bytes = flatten(payload);
  return [id, unsignedLeb(bytes.length), bytes];
}

/** All bytes of a rope, in order. */
export function flatten(code: Code): number[] {
  const bytes: number[] = [];
  append(bytes, code);
  return bytes;
}

/** Pushes all bytes of a rope. */
export function append(bytes: number[], code: Code): void {
  for (const part of code) {
    if (typeof part === 'number') bytes.push(part);
    else append(bytes, part);
  }
}

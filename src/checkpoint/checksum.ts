/** A checksum of a tensor's bytes: equal bits give equal sums. Reads the tensor back to the host. */

import { toHost } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';

/** 64 bits as hexadecimal text: FNV-1a over the bytes and a second sum over them in another order. */
export function checksum(tensor: Tensor): string {
  const { data } = toHost(tensor);
  let forward = 0x811c9dc5;
  let rolling = 0x9e3779b9;
  for (let i = 0; i < data.length; i++) {
    const byte = data[i] ?? 0;
    forward = Math.imul(forward ^ byte, 0x01000193);
    rolling = (Math.imul(rolling, 31) + byte + (i & 0xff)) | 0;
  }
  const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');
  return hex(forward) + hex(rolling);
}

/** Which packed outputs an invocation can write as whole words. */

import type { KernelSpec } from '../../ir/kernel.ts';
import { isRowMajor } from './points.ts';
import { elementsPerWord } from './storage.ts';
import { u32Text } from './text.ts';

export interface WordPlan {
  /** Consecutive points that one invocation computes at a time: 1, 2 or 4. */
  readonly points: number;
  /** Points of the first group that lie before the first point of the space. */
  readonly lead: number;
  /** Outputs written word by word. */
  readonly whole: ReadonlySet<number>;
}

/**
 * Packed outputs, of those in `candidates`, that lie in the order of the points and so divide into
 * words the same way. `aligned` further asks that no word crosses from one run of `run` points into
 * the next, for kernels that give each run to another workgroup.
 */
export function planWords(
  spec: KernelSpec,
  candidates: readonly number[],
  aligned?: { readonly run: number },
): WordPlan {
  const packed = candidates.filter((k) => {
    const out = spec.outputs[k]!;
    return (
      elementsPerWord(out.dtype) > 1 &&
      isRowMajor(spec, out) &&
      spec.outputs.filter((other) => other.operand === out.operand).length === 1
    );
  });
  let best: WordPlan = { points: 1, lead: 0, whole: new Set() };
  for (const points of [4, 2]) {
    for (let lead = 0; lead < (aligned ? 1 : points); lead++) {
      if (aligned && aligned.run % points !== 0) continue;
      const whole = packed.filter((k) => {
        const { dtype, offset } = spec.outputs[k]!;
        const perWord = elementsPerWord(dtype);
        return points % perWord === 0 && (offset - lead) % perWord === 0;
      });
      const wide = whole.some((k) => elementsPerWord(spec.outputs[k]!.dtype) === points);
      if (wide && whole.length > best.whole.size) best = { points, lead, whole: new Set(whole) };
    }
  }
  return best;
}

/** `bits` moved to the place of point `j` in its word; bits above the element are zero. */
export function placedBits(bits: string, perWord: number, j: number): string {
  const shift = (j % perWord) * (32 / perWord);
  return shift === 0 ? bits : `(${bits}) << ${u32Text(shift)}`;
}

/** The bits of point `j` in its word. */
export function placedMask(perWord: number, j: number): string {
  const width = 32 / perWord;
  return `0x${(((2 ** width - 1) << ((j % perWord) * width)) >>> 0).toString(16)}u`;
}

/**
 * Products with one or two rows (or columns) against a matrix whose rows run along k: the shape of
 * generation, one token times a weight matrix. Packing all of it would cost more than the product, so
 * blocks of sixteen rows by sixteen k are transposed into a small buffer, and each lane sums one
 * element of C front to back, exactly as the micro-kernel does.
 */

import type { FunctionRef } from '../function.ts';
import type { ModuleBuilder } from '../module.ts';
import type { Ptr } from '../pointer.ts';
import type { Var } from '../scalars.ts';
import { F32x4 } from '../vectors.ts';
import { transpose4 } from './pack.ts';

/** Rows of the matrix per step. */
export const skinnyWidth = 16;

type Quad = readonly [F32x4, F32x4, F32x4, F32x4];

/**
 * k per step: a cache line of each row is used up at once, because rows a power of two apart fall into
 * the same few lines of the L1 cache and push each other out.
 */
const lineFloats = 16;

/** Floats of one transposed block. */
const blockFloats = skinnyWidth * lineFloats;

const params = [
  'ptr', // buffer: scratch for two blocks of 16 x 16 floats
  'ptr', // x: the one or two vectors
  'ptr', // xRow: bytes from one vector to the next
  'ptr', // xStep: bytes from one k to the next
  'ptr', // y: the matrix, a row for each element of C
  'ptr', // yRow: bytes from one row to the next
  'i32', // count: rows of y, a multiple of 16
  'i32', // kc, at least 1
  'ptr', // c
  'ptr', // cRow: bytes between the results of the two vectors
  'ptr', // cStep: bytes between the results of neighbouring rows of y
  'f32', // alpha
  'f32', // beta
] as const;

export type Skinny = FunctionRef<typeof params, 'none'>;

export function skinny(module: ModuleBuilder, vectors: 1 | 2): Skinny {
  const groups = skinnyWidth / 4;
  return module.func(
    `skinny${vectors}`,
    params,
    (f, buffer, x, xRow, xStep, y, yRow, count, kc, c, cRow, cStep, alpha, beta) => {
      const acc = Array.from({ length: vectors * groups }, () => f.local('f32x4'));
      const rows = Array.from({ length: 4 }, () => f.local('f32x4'));
      const splat = f.local('f32x4');
      const heads = Array.from({ length: groups }, () => f.local('ptr'));
      const xs = Array.from({ length: vectors }, () => f.local('ptr'));
      const at = f.local('ptr');
      const out = f.local('ptr');
      const now = f.local('ptr');
      const next = f.local('ptr');
      const p = f.local('i32');
      const row4 = f.let(yRow.mul(4));
      const scale = f.let(F32x4.splat(alpha));
      const betas = f.let(F32x4.splat(beta));
      const each = (list: readonly Var<Ptr>[], visit: (item: Var<Ptr>, i: number) => void): void =>
        list.forEach(visit);

      /** Takes one k of sixteen rows, held in `rows`, into the sums. */
      const accumulate = (): void =>
        each(xs, (vector, v) => {
          splat.set(vector.f32x4Splat());
          vector.set(vector.add(xStep));
          rows.forEach((column, g) => {
            const sum = acc[v * groups + g] as Var<F32x4>;
            sum.set(f.madd(splat, column, sum));
          });
        });

      const sumFrom = (block: Ptr, k: number): void => {
        rows.forEach((column, g) => {
          column.set(block.f32x4(4 * (skinnyWidth * k + 4 * g)));
        });
        accumulate();
      };
      /** Transposes one of the sixteen 4 x 4 parts of the block at `heads`. */
      const transposePiece = (piece: number, block: Ptr): void => {
        const [g, k] = [piece >> 2, 4 * (piece & 3)];
        at.set(heads[g] as Ptr);
        rows.forEach((row, i) => {
          row.set(at.f32x4(4 * k));
          if (i < 3) at.set(at.add(yRow));
        });
        const [first, second, third, fourth] = rows as unknown as Quad;
        transpose4(f, [first, second, third, fourth]).forEach((column, i) => {
          f.store(block, column, 4 * (skinnyWidth * (k + i) + 4 * g));
        });
      };
      const advance = (): void => each(heads, (head) => head.set(head.add(4 * lineFloats)));

      f.whileLoop(
        () => count.gtS(0),
        () => {
          for (const sum of acc) sum.set(0);
          each(heads, (head, g) => head.set(g === 0 ? y : (heads[g - 1] as Ptr).add(row4)));
          each(xs, (vector, v) => vector.set(v === 0 ? x : (xs[v - 1] as Ptr).add(xRow)));
          // While one block is summed the next is transposed: the one waits for results, the other does not.
          f.if(kc.geS(lineFloats), () => {
            now.set(buffer);
            next.set(buffer.add(4 * blockFloats));
            for (let piece = 0; piece < lineFloats; piece++) transposePiece(piece, now);
            advance();
            f.forRange(p, 2 * lineFloats, kc.add(1), lineFloats, () => {
              for (let piece = 0; piece < lineFloats; piece++) {
                transposePiece(piece, next);
                sumFrom(now, piece);
              }
              advance();
              at.set(now);
              now.set(next);
              next.set(at);
            });
            for (let k = 0; k < lineFloats; k++) sumFrom(now, k);
          });
          f.forRange(p, kc.and(-lineFloats), kc, 1, () => {
            heads.forEach((head, g) => {
              at.set(head);
              const column = rows[g] as Var<F32x4>;
              for (let i = 0; i < 4; i++) {
                column.set(at.lane(column, i));
                if (i < 3) at.set(at.add(yRow));
              }
              head.set(head.add(4));
            });
            accumulate();
          });
          for (let v = 0; v < vectors; v++) {
            out.set(v === 0 ? c : c.add(cRow));
            for (let g = 0; g < groups; g++) {
              const sum = acc[v * groups + g] as Var<F32x4>;
              f.if(
                beta.eq(0),
                () => sum.set(scale.mul(sum)),
                () => {
                  at.set(out);
                  for (let i = 0; i < 4; i++) {
                    splat.set(at.lane(splat, i));
                    at.set(at.add(cStep));
                  }
                  sum.set(f.madd(scale, sum, betas.mul(splat)));
                },
              );
              for (let i = 0; i < 4; i++) {
                f.storeLane(out, sum, i);
                out.set(out.add(cStep));
              }
            }
          }
          y.set(y.add(yRow.mul(skinnyWidth)));
          c.set(c.add(cStep.mul(skinnyWidth)));
          count.set(count.sub(skinnyWidth));
        },
      );
    },
    { export: false },
  );
}

/**
 * The micro-kernel: C tiles of `rows` x nr in registers while k runs, down one column of tiles.
 *
 * Every element of C is computed as acc = 0; acc = madd(a[p], b[p], acc) for p = 0 .. kc - 1 in order,
 * then C = alpha * acc (beta = 0) or madd(alpha, acc, beta * C). Rows and columns never meet, so tile
 * shapes and the way callers cut m and n cannot change a bit.
 */

import type { FunctionRef } from '../function.ts';
import type { ModuleBuilder } from '../module.ts';
import type { Var } from '../scalars.ts';
import { F32x4 } from '../vectors.ts';

const params = [
  'ptr', // a: first A panel, `rows` floats for each k
  'ptr', // aStep: bytes from one k to the next
  'ptr', // aTile: bytes from one panel to the next
  'ptr', // b: B panel, nr floats for each k
  'ptr', // bStep
  'i32', // kc, at least 1
  'i32', // tiles: how many tiles downwards
  'ptr', // c
  'ptr', // cStep: bytes from one row of C to the next
  'f32', // alpha
  'f32', // beta
] as const;

export type MicroKernel = FunctionRef<typeof params, 'none'>;

export function microKernel(module: ModuleBuilder, rows: number, nr: number): MicroKernel {
  const vectors = nr / 4;
  return module.func(
    `micro${rows}x${nr}`,
    params,
    (f, a, aStep, aTile, b, bStep, kc, tiles, c, cStep, alpha, beta) => {
      const acc = Array.from({ length: rows * vectors }, () => f.local('f32x4'));
      const bVectors = Array.from({ length: vectors }, () => f.local('f32x4'));
      const aVector = f.local('f32x4');
      const aNow = f.local('ptr');
      const bNow = f.local('ptr');
      const bEnd = f.let(b.add(bStep.mul(kc)));
      const scale = f.let(F32x4.splat(alpha));
      const betas = f.let(F32x4.splat(beta));
      f.loop((nextTile) => {
        for (const x of acc) x.set(0);
        aNow.set(a);
        bNow.set(b);
        f.loop((again) => {
          bVectors.forEach((x, j) => {
            x.set(bNow.f32x4(16 * j));
          });
          for (let i = 0; i < rows; i++) {
            aVector.set(aNow.f32x4Splat(4 * i));
            bVectors.forEach((x, j) => {
              const sum = acc[i * vectors + j] as Var<F32x4>;
              sum.set(f.madd(aVector, x, sum));
            });
          }
          aNow.set(aNow.add(aStep));
          bNow.set(bNow.add(bStep));
          f.brIf(again, bNow.ne(bEnd));
        });
        // A row's loads come before its stores, so that V8 may join neighbours into wider vectors.
        const eachRow = (result: (sum: F32x4, old: F32x4) => F32x4, readsC: boolean): void => {
          aNow.set(c);
          for (let i = 0; i < rows; i++) {
            const sums = acc.slice(i * vectors, (i + 1) * vectors);
            if (readsC) for (const [j, x] of bVectors.entries()) x.set(aNow.f32x4(16 * j));
            for (const [j, sum] of sums.entries()) {
              f.store(aNow, result(sum, bVectors[j] as F32x4), 16 * j);
            }
            aNow.set(aNow.add(cStep));
          }
          c.set(aNow);
        };
        f.if(
          beta.eq(0),
          () => eachRow((sum) => scale.mul(sum), false),
          () => eachRow((sum, old) => f.madd(scale, sum, betas.mul(old)), true),
        );
        a.set(a.add(aTile));
        tiles.set(tiles.sub(1));
        f.brIf(nextTile, tiles);
      });
    },
    { export: false },
  );
}

/** tile, rows, columns, c, cStep, alpha, beta: C from a tile of raw sums, nr floats a row. */
export function mergeTile(
  module: ModuleBuilder,
  nr: number,
): FunctionRef<readonly ['ptr', 'i32', 'i32', 'ptr', 'ptr', 'f32', 'f32'], 'none'> {
  return module.func(
    'mergeTile',
    ['ptr', 'i32', 'i32', 'ptr', 'ptr', 'f32', 'f32'],
    (f, tile, rows, columns, c, cStep, alpha, beta) => {
      const from = f.local('ptr');
      const to = f.local('ptr');
      const end = f.local('ptr');
      const scale = f.let(F32x4.splat(alpha));
      const betas = f.let(F32x4.splat(beta));
      const merged = (sum: F32x4, old: () => F32x4, write: (x: F32x4) => void): void =>
        f.if(
          beta.eq(0),
          () => write(scale.mul(sum)),
          () => write(f.madd(scale, sum, betas.mul(old()))),
        );
      f.whileLoop(
        () => rows.gtS(0),
        () => {
          from.set(tile);
          to.set(c);
          end.set(tile.at(columns, 4));
          f.whileLoop(
            () => from.add(16).le(end),
            () => {
              merged(
                from.f32x4(),
                () => to.f32x4(),
                (x) => f.store(to, x),
              );
              from.set(from.add(16));
              to.set(to.add(16));
            },
          );
          f.whileLoop(
            () => from.lt(end),
            () => {
              merged(
                from.f32x4Splat(),
                () => to.f32x4Splat(),
                (x) => f.storeLane(to, x, 0),
              );
              from.set(from.add(4));
              to.set(to.add(4));
            },
          );
          tile.set(tile.add(4 * nr));
          c.set(c.add(cStep));
          rows.set(rows.sub(1));
        },
      );
    },
    { export: false },
  );
}

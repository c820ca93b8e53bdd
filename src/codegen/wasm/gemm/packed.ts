/**
 * The packed product for matrices of any shape: the loops of blocking.ts around the micro-kernel.
 * Expects m, n and k of at least 1; arguments as those of `gemm`.
 */

import type { FunctionBuilder, FunctionRef } from '../function.ts';
import type { ModuleBuilder } from '../module.ts';
import type { Ptr } from '../pointer.ts';
import { F32, I32, select, type Var } from '../scalars.ts';
import { type Blocking, scratchOffsets } from './blocking.ts';
import { type MicroKernel, mergeTile, microKernel } from './micro-kernel.ts';
import { packCopied, packTransposed } from './pack.ts';

/** scratch, transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc; strides in floats. */
export const gemmModuleParams = [
  'ptr',
  'i32',
  'i32',
  'i32',
  'i32',
  'i32',
  'f32',
  'ptr',
  'i32',
  'ptr',
  'i32',
  'f32',
  'ptr',
  'i32',
] as const;

export function packedProduct(
  module: ModuleBuilder,
  blocking: Blocking,
): FunctionRef<typeof gemmModuleParams, 'none'> {
  const { mr, nr, mc, kc: kBlock, nc: nBlock } = blocking;
  const offsets = scratchOffsets(blocking);
  const kernels = Array.from({ length: mr }, (_, i) => microKernel(module, i + 1, nr));
  const full = kernels[mr - 1] as MicroKernel;
  const merge = mergeTile(module, nr);
  const packs = {
    aCopied: packCopied(module, 'packACopied', mr),
    aTransposed: packTransposed(module, 'packATransposed', mr),
    bCopied: packCopied(module, 'packBCopied', nr),
    bTransposed: packTransposed(module, 'packBTransposed', nr),
  };

  return module.func(
    'packedProduct',
    gemmModuleParams,
    (f, scratch, transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) => {
      const cStep = f.let(f.stride(ldc, 4));
      const aStep = f.let(f.stride(lda, 4));
      const bStep = f.let(f.stride(ldb, 4));
      const packedA = f.let(scratch.add(offsets.packedA));
      const packedB = f.let(scratch.add(offsets.packedB));
      const tile = f.let(scratch.add(offsets.tile));
      const [jc, pc, ic, jr, it] = integers(f, 5);
      const [nc, kc, mcNow, left, tiles, tail] = integers(f, 6);
      const betaNow = f.local('f32');
      const bPanel = f.local('ptr');
      const bRow = f.local('ptr');
      const direct = f.let(m.leS(mr).and(transB.eqz()));
      const aPanel = f.local('ptr');
      const cTile = f.local('ptr');

      const rowTail = (run: (kernel: MicroKernel) => void): void => {
        for (let rows = 1; rows < mr; rows++) {
          f.if(tail.eq(rows), () => run(kernels[rows - 1] as MicroKernel));
        }
      };

      f.forRange(jc, 0, n, nBlock, () => {
        nc.set(n.sub(jc).minS(nBlock));
        f.forRange(pc, 0, k, kBlock, () => {
          kc.set(k.sub(pc).minS(kBlock));
          betaNow.set(select(pc.eqz(), beta, F32.of(1)));
          // With one row of tiles a packed B would be read once: read full panels where they are.
          const packedFrom = f.let(select(direct, nc.sub(nc.remU(nr)), I32.of(0)));
          f.if(packedFrom.ltS(nc), () => {
            const from = element(b, bStep, transB, pc, jc.add(packedFrom));
            const to = packedB.add(f.stride(packedFrom, 4).mul(kc));
            const args = [to, from, bStep, nc.sub(packedFrom), kc] as const;
            f.if(
              transB,
              () => f.call(packs.bTransposed, args),
              () => f.call(packs.bCopied, args),
            );
          });
          f.forRange(ic, 0, m, mc, () => {
            mcNow.set(m.sub(ic).minS(mc));
            f.if(
              transA,
              () =>
                f.call(packs.aCopied, [
                  packedA,
                  element(a, aStep, transA, ic, pc),
                  aStep,
                  mcNow,
                  kc,
                ]),
              () =>
                f.call(packs.aTransposed, [
                  packedA,
                  element(a, aStep, transA, ic, pc),
                  aStep,
                  mcNow,
                  kc,
                ]),
            );
            tiles.set(mcNow.divU(mr));
            tail.set(mcNow.remU(mr));
            const aTile = f.let(f.stride(kc, 4 * mr));
            bPanel.set(packedB);
            bRow.set(f.stride(nr, 4));
            f.forRange(jr, 0, nc, nr, () => {
              left.set(nc.sub(jr));
              f.if(direct, () => {
                const inPlace = left.geS(nr);
                const from = f.let(element(b, bStep, transB, pc, jc.add(jr)));
                bPanel.set(select(inPlace, from, packedB.add(f.stride(jr, 4).mul(kc))));
                bRow.set(select(inPlace, bStep, f.value('ptr', 4 * nr)));
              });
              cTile.set(c.add(cStep.mul(ic)).at(jc.add(jr), 4));
              f.if(
                left.geS(nr),
                () => {
                  f.if(tiles, () =>
                    f.call(full, [
                      packedA,
                      4 * mr,
                      aTile,
                      bPanel,
                      bRow,
                      kc,
                      tiles,
                      cTile,
                      cStep,
                      alpha,
                      betaNow,
                    ]),
                  );
                  cTile.set(cTile.add(cStep.mul(tiles.mul(mr))));
                  aPanel.set(packedA.add(aTile.mul(tiles)));
                  rowTail((kernel) =>
                    f.call(kernel, [
                      aPanel,
                      4 * mr,
                      aTile,
                      bPanel,
                      bRow,
                      kc,
                      1,
                      cTile,
                      cStep,
                      alpha,
                      betaNow,
                    ]),
                  );
                },
                () => {
                  aPanel.set(packedA);
                  f.forRange(it, 0, tiles, 1, () => {
                    f.call(full, [aPanel, 4 * mr, aTile, bPanel, bRow, kc, 1, tile, 4 * nr, 1, 0]);
                    f.call(merge, [tile, mr, left, cTile, cStep, alpha, betaNow]);
                    aPanel.set(aPanel.add(aTile));
                    cTile.set(cTile.add(cStep.mul(mr)));
                  });
                  rowTail((kernel) => {
                    f.call(kernel, [
                      aPanel,
                      4 * mr,
                      aTile,
                      bPanel,
                      bRow,
                      kc,
                      1,
                      tile,
                      4 * nr,
                      1,
                      0,
                    ]);
                    f.call(merge, [tile, tail, left, cTile, cStep, alpha, betaNow]);
                  });
                },
              );
              bPanel.set(bPanel.add(f.stride(kc, 4 * nr)));
            });
          });
        });
      });
    },
    { export: false },
  );
}

/** Address of op(X)'s element (i, j): X is stored transposed if `trans`; `step` in bytes. */
export function element(x: Ptr, step: Ptr, trans: I32, i: I32, j: I32): Ptr {
  return x.add(step.mul(select(trans, j, i))).at(select(trans, i, j), 4);
}

function integers<N extends 5 | 6>(f: FunctionBuilder, count: N): IntegerTuple<N> {
  return Array.from({ length: count }, () => f.local('i32')) as unknown as IntegerTuple<N>;
}

type I = Var<I32>;
type IntegerTuple<N extends 5 | 6> = N extends 5 ? [I, I, I, I, I] : [I, I, I, I, I, I];

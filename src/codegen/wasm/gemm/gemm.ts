/**
 * Emits the matrix multiply: a module that imports env.memory and exports
 *
 *   gemm(scratch, transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
 *
 * C = alpha * op(A) op(B) + beta * C in float32 on the calling thread, all matrices row-major, as
 * sgemm of the reference BLAS: op(A) is m x k, op(B) k x n; with beta = 0 C is not read, with alpha = 0
 * neither A nor B. `scratch` is `gemmScratchBytes` bytes that only this call uses, 16-byte aligned.
 *
 * Order of summation: k is cut into blocks of kc; inside a block each element is summed front to
 * back, and blocks are added to C in turn. It depends on k alone, so cutting C by rows or columns, in
 * any way and with any layout, gives the same bits as one call.
 */

import { ModuleBuilder, type ModuleOptions } from '../module.ts';
import { F32, select } from '../scalars.ts';
import { type Blocking, narrowBlocking } from './blocking.ts';
import { gemmModuleParams, packedProduct } from './packed.ts';
import { skinny, skinnyWidth } from './skinny.ts';

export interface GemmOptions extends ModuleOptions {
  readonly blocking?: Blocking;
}

/** The bytes of the module. */
export function emitGemm(options: GemmOptions = {}): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder(options);
  const blocking = options.blocking ?? narrowBlocking;
  const packed = packedProduct(module, blocking);
  const scale = scaleRows(module);
  const skinny1 = skinny(module, 1);
  const skinny2 = skinny(module, 2);

  module.func('gemm', gemmModuleParams, (f, ...args) => {
    const [scratch, transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc] = args;
    f.if(m.leS(0).or(n.leS(0)), () => f.return());
    const cStep = f.let(f.stride(ldc, 4));
    f.if(k.leS(0).or(alpha.eq(0)), () => {
      f.call(scale, [m, n, c, cStep, beta]);
      f.return();
    });
    const aStep = f.let(f.stride(lda, 4));
    const bStep = f.let(f.stride(ldb, 4));
    const unit = f.value('ptr', 4);
    const pc = f.local('i32');
    const kc = f.local('i32');
    const betaNow = f.local('f32');
    const whole = f.local('i32');

    const blocks = (run: () => void): void =>
      f.forRange(pc, 0, k, blocking.kc, () => {
        kc.set(k.sub(pc).minS(blocking.kc));
        betaNow.set(select(pc.eqz(), beta, F32.of(1)));
        run();
      });

    // Few rows of op(A) against rows of a transposed B.
    f.if(transB.and(m.leS(2)).and(n.geS(skinnyWidth)), () => {
      whole.set(n.and(-skinnyWidth));
      const xRow = f.let(select(transA, unit, aStep));
      const xStep = f.let(select(transA, aStep, unit));
      blocks(() => {
        const common = [
          scratch,
          a.add(xStep.mul(pc)),
          xRow,
          xStep,
          b.at(pc, 4),
          bStep,
          whole,
          kc,
          c,
          cStep,
          4,
          alpha,
          betaNow,
        ] as const;
        f.if(
          m.eq(1),
          () => f.call(skinny1, common),
          () => f.call(skinny2, common),
        );
      });
      b.set(b.add(bStep.mul(whole)));
      c.set(c.at(whole, 4));
      n.set(n.sub(whole));
      f.if(n.eqz(), () => f.return());
    });

    // Few columns of op(B) against rows of A.
    f.if(transA.eqz().and(n.leS(2)).and(m.geS(skinnyWidth)), () => {
      whole.set(m.and(-skinnyWidth));
      const xRow = f.let(select(transB, bStep, unit));
      const xStep = f.let(select(transB, unit, bStep));
      blocks(() => {
        const common = [
          scratch,
          b.add(xStep.mul(pc)),
          xRow,
          xStep,
          a.at(pc, 4),
          aStep,
          whole,
          kc,
          c,
          4,
          cStep,
          alpha,
          betaNow,
        ] as const;
        f.if(
          n.eq(1),
          () => f.call(skinny1, common),
          () => f.call(skinny2, common),
        );
      });
      a.set(a.add(aStep.mul(whole)));
      c.set(c.add(cStep.mul(whole)));
      m.set(m.sub(whole));
      f.if(m.eqz(), () => f.return());
    });

    f.call(packed, args);
  });
  return module.bytes();
}

/** m, n, c, cStep, beta: C = beta * C; with beta = 0 C is not read. */
function scaleRows(module: ModuleBuilder) {
  return module.func(
    'scaleRows',
    ['i32', 'i32', 'ptr', 'ptr', 'f32'],
    (f, m, n, c, cStep, beta) => {
      const i = f.local('i32');
      const j = f.local('i32');
      f.if(beta.eq(1), () => f.return());
      f.forRange(i, 0, m, 1, () => {
        f.if(
          beta.eq(0),
          () => f.fill(c, 0, f.stride(n, 4)),
          () =>
            f.forRange(j, 0, n, 1, () => {
              const at = f.let(c.at(j, 4));
              f.store(at, at.f32().mul(beta));
            }),
        );
        c.set(c.add(cStep));
      });
    },
    { export: false },
  );
}

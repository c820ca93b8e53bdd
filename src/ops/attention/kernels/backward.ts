/**
 * Gradients of tiled attention: scores are computed again tile by tile from lse, as FlashAttention-2 does.
 * One thread owns all of one batch entry and key head, so gradients that several query heads and blocks
 * add to need no locks, and their order does not depend on the number of threads.
 *
 * Operands: query, key, value, out, lse, dout, [dlse], dquery, dkey, dvalue.
 */

import type { FunctionBuilder } from '../../../codegen/wasm/function.ts';
import { importGemm, kernelFunction } from '../../../codegen/wasm/kernel-function.ts';
import { ModuleBuilder } from '../../../codegen/wasm/module.ts';
import type { Ptr } from '../../../codegen/wasm/pointer.ts';
import { I32, type Var } from '../../../codegen/wasm/scalars.ts';
import type { Operand, RoutineTarget, WasmRoutine } from '../../../ir/op.ts';
import { dotRow, gradientRow } from './score-rows.ts';
import {
  attentionShape,
  cacheLines,
  fitTile,
  type HeadStrides,
  headStrides,
  leading,
  type MaskParams,
  scoreScale,
  type TileSize,
  tileRowFloats,
} from './shape.ts';
import { forItems, Visible } from './walk.ts';

/** Two tiles, of probabilities and of their gradients, share the L2 with their operands. */
export const backwardTile: TileSize = { rows: 64, columns: 512 };

export interface BackwardOptions {
  /** Whether operand 6 holds the gradient of lse. */
  readonly lseGradient: boolean;
  readonly tile?: TileSize;
}

type Plan = ReturnType<typeof planBackward>;

export function attentionBackward(
  inputs: readonly Operand[],
  mask: MaskParams,
  target: RoutineTarget,
  options: BackwardOptions,
): WasmRoutine {
  const plan = planBackward(inputs, mask, options);
  const { B, T, S, H, D, V } = plan.shape;
  return {
    key: `attentionBackward ${JSON.stringify([plan, target.relaxedSimd, target.memory64])}`,
    build: () => buildBackward(plan, target),
    scratchBytes: plan.scratchBytes,
    parallelUnits: Math.min(plan.items, Math.ceil((B * H * T * S * (D + V)) / 2 ** 16)),
  };
}

function planBackward(inputs: readonly Operand[], mask: MaskParams, options: BackwardOptions) {
  const [query, key, value, dout] = [inputs[0]!, inputs[1]!, inputs[2]!, inputs[5]!];
  const shape = attentionShape(query.aval.shape, key.aval.shape, value.aval.shape);
  const tile = fitTile(options.tile ?? backwardTile, shape.T, shape.S);
  const tileBytes = 4 * tile.rows * tileRowFloats(tile);
  return {
    shape,
    mask,
    lseGradient: options.lseGradient,
    query: headStrides(query),
    key: headStrides(key),
    value: headStrides(value),
    dout: headStrides(dout),
    tile,
    tileBytes,
    items: shape.B * shape.K,
    scratchBytes: cacheLines(2 * tileBytes + 4 * tile.rows),
  };
}

function buildBackward(plan: Plan, target: RoutineTarget): Uint8Array {
  const { shape, mask, tile } = plan;
  const { T, S, H, K, D, V } = shape;
  const group = H / K;
  const queryRow = leading(plan.query.position, D);
  const keyRow = leading(plan.key.position, D);
  const valueRow = leading(plan.value.position, V);
  const doutRow = leading(plan.dout.position, V);
  const tileRow = tileRowFloats(tile);
  const scale = scoreScale(mask, D);
  const module = new ModuleBuilder({
    address: target.memory64 ? 'i64' : 'i32',
    relaxed: target.relaxedSimd,
  });
  const gemm = importGemm(module);
  const gradients = gradientRow(module);
  const dot = dotRow(module);
  kernelFunction(module, 'main', (f, k) => {
    const [query, key, value, out, lse, dout] = [0, 1, 2, 3, 4, 5].map((slot) => k.ptr(slot));
    const dlse = plan.lseGradient ? k.ptr(6) : undefined;
    const next = plan.lseGradient ? 7 : 6;
    const [dquery, dkey, dvalue] = [k.ptr(next), k.ptr(next + 1), k.ptr(next + 2)];
    const scores = f.let(k.ptr(next + 3).at(k.thread, plan.scratchBytes));
    const dscores = f.let(scores.add(plan.tileBytes));
    const deltas = f.let(dscores.add(plan.tileBytes));
    const visible = new Visible(f, mask, I32.of(S), I32.of(S - T));
    const [g, first, start, row] = [
      f.local('i32'),
      f.local('i32'),
      f.local('i32'),
      f.local('i32'),
    ];
    const [p, dp, lseAt, deltaAt] = [
      f.local('ptr'),
      f.local('ptr'),
      f.local('ptr'),
      f.local('ptr'),
    ];

    forItems(f, k, plan.items, (item) => {
      const batch = f.let(item.divS(K));
      const kvHead = f.let(item.remS(K));
      const place = (base: Ptr, strides: HeadStrides, h: I32): Ptr =>
        base.at(batch, 4 * strides.batch).at(h, 4 * strides.head);
      const keys = f.let(place(key!, plan.key, kvHead));
      const values = f.let(place(value!, plan.value, kvHead));
      const dkeys = f.let(dkey.at(batch, 4 * S * K * D).at(kvHead, 4 * D));
      const dvalues = f.let(dvalue.at(batch, 4 * S * K * V).at(kvHead, 4 * V));
      zeroRows(f, dkeys, S, D, K * D);
      zeroRows(f, dvalues, S, V, K * V);
      f.forRange(g, 0, group, 1, () => {
        const head = f.let(kvHead.mul(group).add(g));
        const queries = f.let(place(query!, plan.query, head));
        const douts = f.let(place(dout!, plan.dout, head));
        const outs = f.let(out!.at(batch, 4 * T * H * V).at(head, 4 * V));
        const dqueries = f.let(dquery.at(batch, 4 * T * H * D).at(head, 4 * D));
        const stats = f.let(batch.mul(H).add(head).mul(T));
        f.forRange(first, 0, T, tile.rows, () => {
          const rows = f.let(I32.of(T).sub(first).minS(tile.rows));
          const q = f.let(queries.at(first, 4 * queryRow));
          const go = f.let(douts.at(first, 4 * doutRow));
          const dq = f.let(dqueries.at(first, 4 * H * D));
          const statsAt = f.let(stats.add(first));
          rowDeltas(rows, go, outs.at(first, 4 * H * V), dlse?.at(statsAt, 4));
          const { from, to } = visible.range(first, f.let(first.add(rows).sub(1)));
          f.if(from.geS(to), () => zeroRows(f, dq, rows, D, H * D));
          const beta = f.local('f32', 0);
          f.forRange(start, from, to, tile.columns, () => {
            const count = f.let(to.sub(start).minS(tile.columns));
            const keysAt = f.let(keys.at(start, 4 * keyRow));
            const valuesAt = values.at(start, 4 * valueRow);
            const factor = scale * Math.LOG2E;
            f.call(gemm, [0, 1, rows, count, D, factor, q, queryRow, keysAt, keyRow, 0, scores, tileRow]);
            f.call(gemm, [0, 1, rows, count, V, 1, go, doutRow, valuesAt, valueRow, 0, dscores, tileRow]);
            p.set(scores);
            dp.set(dscores);
            lseAt.set(lse!.at(statsAt, 4));
            deltaAt.set(deltas);
            f.forRange(row, 0, rows, 1, () => {
              const part = visible.row(f.let(first.add(row)), start, count);
              const bits = lseAt.f32().mul(Math.LOG2E);
              f.call(gradients, [p, count, part.from, part.to, dp, bits, deltaAt.f32()]);
              p.set(p.add(4 * tileRow));
              dp.set(dp.add(4 * tileRow));
              lseAt.set(lseAt.add(4));
              deltaAt.set(deltaAt.add(4));
            });
            const dvaluesAt = dvalues.at(start, 4 * K * V);
            const dkeysAt = dkeys.at(start, 4 * K * D);
            f.call(gemm, [1, 0, count, V, rows, 1, scores, tileRow, go, doutRow, 1, dvaluesAt, K * V]);
            f.call(gemm, [1, 0, count, D, rows, scale, dscores, tileRow, q, queryRow, 1, dkeysAt, K * D]);
            f.call(gemm, [0, 0, rows, D, count, scale, dscores, tileRow, keysAt, keyRow, beta, dq, H * D]);
            beta.set(1);
          });
        });
      });
    });

    /** delta = sum of dout * out over a row, less the gradient of lse. */
    function rowDeltas(rows: I32, go: Ptr, outAt: Ptr, dlseAt: Ptr | undefined): void {
      const [a, b] = [f.let(go), f.let(outAt)];
      const c = dlseAt && f.let(dlseAt);
      deltaAt.set(deltas);
      f.forRange(row, 0, rows, 1, () => {
        const delta = f.call(dot, [a, b, V]);
        f.store(deltaAt, c ? delta.sub(c.f32()) : delta);
        a.set(a.add(4 * doutRow));
        b.set(b.add(4 * H * V));
        deltaAt.set(deltaAt.add(4));
        c?.set(c.add(4));
      });
    }
  });
  return module.bytes();
}

/** Zeroes `rows` rows of `width` floats that are `stride` floats apart. */
function zeroRows(
  f: FunctionBuilder,
  base: Var<Ptr>,
  rows: I32 | number,
  width: number,
  stride: number,
): void {
  if (width === stride) {
    f.fill(base, 0, f.value('i32', rows).mul(4 * width));
    return;
  }
  const at = f.let(base);
  const i = f.local('i32');
  f.forRange(i, 0, rows, 1, () => {
    f.fill(at, 0, 4 * width);
    at.set(at.add(4 * stride));
  });
}

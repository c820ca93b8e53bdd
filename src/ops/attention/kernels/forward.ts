/**
 * Tiled attention in the manner of FlashAttention-2 (Dao, 2023): for a block of queries, scores with one
 * block of keys at a time, a running softmax, and the product with the values added up in the output. The
 * matrix of all scores never exists. Blocks that the mask hides are skipped.
 *
 * Operands: query, key, value, [kvLength int32], out [B, T, H, V], lse [B, H, T].
 */

import { importGemm, kernelFunction } from '../../../codegen/wasm/kernel-function.ts';
import { ModuleBuilder } from '../../../codegen/wasm/module.ts';
import type { Ptr } from '../../../codegen/wasm/pointer.ts';
import { F32, I32, type Var } from '../../../codegen/wasm/scalars.ts';
import type { Operand, RoutineTarget, WasmRoutine } from '../../../ir/op.ts';
import { log2, rowState, scaleRow, softmaxRow } from './score-rows.ts';
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

/** A tile of scores of 64 x 512 floats (132 KiB) stays in a 512 KiB L2 beside its operands. */
export const forwardTile: TileSize = { rows: 64, columns: 512 };

export interface ForwardOptions {
  /** Whether operand 3 holds the number of valid keys. */
  readonly kvLength: boolean;
  readonly tile?: TileSize;
}

type Plan = ReturnType<typeof planForward>;

export function attentionForward(
  inputs: readonly Operand[],
  mask: MaskParams,
  target: RoutineTarget,
  options: ForwardOptions,
): WasmRoutine {
  const plan = planForward(inputs, mask, options);
  const { B, T, S, H, D, V } = plan.shape;
  return {
    key: `attention ${JSON.stringify([plan, target.relaxedSimd, target.memory64])}`,
    build: () => buildForward(plan, target),
    scratchBytes: plan.scratchBytes,
    parallelUnits: Math.min(plan.items, Math.ceil((B * H * T * S * (D + V)) / 2 ** 17)),
  };
}

function planForward(inputs: readonly Operand[], mask: MaskParams, options: ForwardOptions) {
  const [query, key, value] = [inputs[0]!, inputs[1]!, inputs[2]!];
  const shape = attentionShape(query.aval.shape, key.aval.shape, value.aval.shape);
  const { B, T, S, H, K } = shape;
  const group = H / K;
  // A single query per head: the heads that share keys are the rows of one block.
  const headsAsRows = T === 1 && group > 1;
  const rowCount = headsAsRows ? group : T;
  const tile = fitTile(options.tile ?? forwardTile, rowCount, S);
  const blocks = Math.ceil(rowCount / tile.rows);
  const tileBytes = 4 * tile.rows * tileRowFloats(tile);
  return {
    shape,
    mask,
    kvLength: options.kvLength,
    query: headStrides(query),
    key: headStrides(key),
    value: headStrides(value),
    headsAsRows,
    rowCount,
    tile,
    blocks,
    tileBytes,
    items: B * (headsAsRows ? K : H) * blocks,
    scratchBytes: cacheLines(tileBytes + tile.rows * rowState.bytes),
  };
}

function buildForward(plan: Plan, target: RoutineTarget): Uint8Array {
  const { shape, mask, tile, headsAsRows, blocks } = plan;
  const { T, S, H, K, D, V } = shape;
  const group = H / K;
  const queryRow = leading(headsAsRows ? plan.query.head : plan.query.position, D);
  const keyRow = leading(plan.key.position, D);
  const valueRow = leading(plan.value.position, V);
  const outRow = headsAsRows ? V : H * V;
  const tileRow = tileRowFloats(tile);
  const factor = scoreScale(mask, D) * Math.LOG2E;
  const module = new ModuleBuilder({
    address: target.memory64 ? 'i64' : 'i32',
    relaxed: target.relaxedSimd,
  });
  const gemm = importGemm(module);
  const softmax = softmaxRow(module);
  const scale = scaleRow(module);
  const logarithm = log2(module);
  kernelFunction(module, 'main', (f, k) => {
    const [query, key, value] = [k.ptr(0), k.ptr(1), k.ptr(2)];
    const limit = f.let(plan.kvLength ? k.ptr(3).i32() : I32.of(S));
    if (plan.kvLength) limit.set(limit.maxS(0).minS(S));
    const next = plan.kvLength ? 4 : 3;
    const [out, lse] = [k.ptr(next), k.ptr(next + 1)];
    const scores = f.let(k.ptr(next + 2).at(k.thread, plan.scratchBytes));
    const states = f.let(scores.add(plan.tileBytes));
    const visible = new Visible(f, mask, limit, f.let(limit.sub(T)));
    const [row, start] = [f.local('i32'), f.local('i32')];
    const [state, scoreRow, outAt] = [f.local('ptr'), f.local('ptr'), f.local('ptr')];

    forItems(f, k, plan.items, (item) => {
      // Last blocks first: with a causal mask they are the dear ones.
      const first = f.let(
        I32.of(blocks - 1)
          .sub(item.remS(blocks))
          .mul(tile.rows),
      );
      const rows = f.let(I32.of(plan.rowCount).sub(first).minS(tile.rows));
      const rest = f.let(item.divS(blocks));
      const batch = f.let(rest.divS(headsAsRows ? K : H));
      const unit = f.let(rest.remS(headsAsRows ? K : H));
      const head = f.let(headsAsRows ? unit.mul(group) : unit);
      const kvHead = f.let(headsAsRows ? unit : unit.divS(group));
      const place = (base: Ptr, strides: HeadStrides, h: I32): Ptr =>
        base.at(batch, 4 * strides.batch).at(h, 4 * strides.head);
      const q = f.let(place(query, plan.query, head).at(first, 4 * queryRow));
      const keys = f.let(place(key, plan.key, kvHead));
      const values = f.let(place(value, plan.value, kvHead));
      const o = f.let(
        out
          .at(batch, 4 * T * H * V)
          .at(head, 4 * V)
          .at(first, 4 * outRow),
      );
      const firstQuery = f.let(headsAsRows ? I32.of(0) : first);
      const lastQuery = f.let(headsAsRows ? I32.of(0) : first.add(rows).sub(1));
      const { from, to } = visible.range(firstQuery, lastQuery);
      f.forRange(state, states, f.let(states.at(rows, rowState.bytes)), rowState.bytes, () => {
        f.store(state, F32.of(Number.NEGATIVE_INFINITY), rowState.max);
        f.store(state, F32.of(0), rowState.sum);
      });
      const beta = f.local('f32', 0);
      f.forRange(start, from, to, tile.columns, () => {
        const count = f.let(to.sub(start).minS(tile.columns));
        const keysAt = keys.at(start, 4 * keyRow);
        f.call(gemm, [
          0,
          1,
          rows,
          count,
          D,
          factor,
          q,
          queryRow,
          keysAt,
          keyRow,
          0,
          scores,
          tileRow,
        ]);
        scoreRow.set(scores);
        state.set(states);
        outAt.set(o);
        f.forRange(row, 0, rows, 1, () => {
          const query = headsAsRows ? firstQuery : f.let(firstQuery.add(row));
          const part = visible.row(query, start, count);
          f.call(softmax, [scoreRow, count, part.from, part.to, state]);
          const correction = f.let(state.f32(rowState.correction));
          f.if(beta.ne(0).and(correction.ne(1)), () => f.call(scale, [outAt, V, correction]));
          scoreRow.set(scoreRow.add(4 * tileRow));
          state.set(state.add(rowState.bytes));
          outAt.set(outAt.add(4 * outRow));
        });
        const valuesAt = values.at(start, 4 * valueRow);
        f.call(gemm, [
          0,
          0,
          rows,
          V,
          count,
          1,
          scores,
          tileRow,
          valuesAt,
          valueRow,
          beta,
          o,
          outRow,
        ]);
        beta.set(1);
      });
      const lseAt = f.let(lse.at(batch.mul(H).add(head), 4 * T).at(first, 4));
      finishRows(rows, o, lseAt);
    });

    /** Divides each row by its sum; a row that saw no key becomes zero, with lse -infinity. */
    function finishRows(rows: I32, o: Var<Ptr>, lseAt: Var<Ptr>): void {
      state.set(states);
      f.forRange(row, 0, rows, 1, () => {
        const sum = f.let(state.f32(rowState.sum));
        f.if(
          sum.eq(0),
          () => {
            f.fill(o, 0, 4 * V);
            f.store(lseAt, F32.of(Number.NEGATIVE_INFINITY));
          },
          () => {
            f.call(scale, [o, V, F32.of(1).div(sum)]);
            const bits = f.call(logarithm, [sum]);
            f.store(lseAt, bits.add(state.f32(rowState.max)).mul(Math.LN2));
          },
        );
        state.set(state.add(rowState.bytes));
        lseAt.set(lseAt.add(4));
        o.set(o.add(4 * outRow));
      });
    }
  });
  return module.bytes();
}

/**
 * Gradients of tiled attention: scores are computed again tile by tile from lse, as FlashAttention-2 does.
 *
 * No two threads add to one gradient. Either one thread takes all of a batch entry and key head, for five
 * multiplies per tile; or, when there are too few of those for the threads, items are blocks of keys, which
 * give dkey and dvalue (four multiplies), and blocks of queries, which give dquery (three). Tiles and the
 * order of additions are the same both ways, so no bit depends on the number of threads.
 *
 * Operands: query, key, value, out, lse, dout, [dlse], dquery, dkey, dvalue.
 */

import type { FunctionBuilder } from '../../../codegen/wasm/function.ts';
import { importGemm, kernelFunction } from '../../../codegen/wasm/kernel-function.ts';
import { ModuleBuilder } from '../../../codegen/wasm/module.ts';
import type { Ptr } from '../../../codegen/wasm/pointer.ts';
import { type F32, I32, type Var } from '../../../codegen/wasm/scalars.ts';
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
export const backwardTile: TileSize = { rows: 64, columns: 256 };

export interface BackwardOptions {
  /** Whether operand 6 holds the gradient of lse. */
  readonly lseGradient: boolean;
  readonly tile?: TileSize;
  /** Whether keys and queries are separate items; by default as the number of threads asks. */
  readonly split?: boolean;
}

type Plan = ReturnType<typeof planBackward>;

export function attentionBackward(
  inputs: readonly Operand[],
  mask: MaskParams,
  target: RoutineTarget,
  options: BackwardOptions,
): WasmRoutine {
  const plan = planBackward(inputs, mask, target.threads, options);
  const { B, T, S, H, D, V } = plan.shape;
  return {
    key: `attentionBackward ${JSON.stringify([plan, target.relaxedSimd, target.memory64])}`,
    build: () => buildBackward(plan, target),
    scratchBytes: plan.scratchBytes,
    parallelUnits: Math.min(plan.items, Math.ceil((B * H * T * S * (D + V)) / 2 ** 16)),
  };
}

function planBackward(
  inputs: readonly Operand[],
  mask: MaskParams,
  threads: number,
  options: BackwardOptions,
) {
  const [query, key, value, dout] = [inputs[0]!, inputs[1]!, inputs[2]!, inputs[5]!];
  const shape = attentionShape(query.aval.shape, key.aval.shape, value.aval.shape);
  const { B, T, S, H, K } = shape;
  const tile = fitTile(options.tile ?? backwardTile, T, S);
  const tileBytes = 4 * tile.rows * tileRowFloats(tile);
  const blocks = { queries: Math.ceil(T / tile.rows), keys: Math.ceil(S / tile.columns) };
  const pieces = blocks.queries + blocks.keys;
  const split = options.split ?? (pieces > 2 && worthSplitting(B * K, threads));
  const keyItems = B * K * (split ? blocks.keys : 1);
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
    blocks,
    split,
    keyItems,
    items: keyItems + (split ? B * H * blocks.queries : 0),
    scratchBytes: cacheLines(2 * tileBytes + 4 * tile.rows),
  };
}

/** Whether seven multiplies per tile on all threads take less time than five on those with a head. */
function worthSplitting(heads: number, threads: number): boolean {
  return (7 * heads) / threads < 0.9 * 5 * Math.ceil(heads / threads);
}

/** What of a tile is wanted. */
interface Wanted {
  readonly keys: boolean;
  readonly queries: boolean;
}

function buildBackward(plan: Plan, target: RoutineTarget): Uint8Array {
  const { shape, mask, tile, blocks } = plan;
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
    const row = f.local('i32');
    const [p, dp, lseAt, deltaAt] = [
      f.local('ptr'),
      f.local('ptr'),
      f.local('ptr'),
      f.local('ptr'),
    ];

    forItems(f, k, plan.items, (item) => {
      if (!plan.split) {
        keysItem(item, I32.of(0), I32.of(blocks.keys), { keys: true, queries: true });
        return;
      }
      f.if(
        item.ltS(plan.keyItems),
        () => {
          const block = f.let(item.remS(blocks.keys));
          const unit = f.let(item.divS(blocks.keys));
          keysItem(unit, block, f.let(block.add(1)), { keys: true, queries: false });
        },
        () => queriesItem(f.let(item.sub(plan.keyItems))),
      );
    });

    /** All that one key head adds up over blocks [firstBlock, lastBlock) of its keys. */
    function keysItem(unit: I32, firstBlock: I32, lastBlock: I32, wanted: Wanted): void {
      const batch = f.let(unit.divS(K));
      const kvHead = f.let(unit.remS(K));
      const start = f.let(firstBlock.mul(tile.columns));
      const end = f.let(lastBlock.mul(tile.columns).minS(S));
      const keyHead = keysOf(batch, kvHead);
      zeroRows(f, keyHead.dkeys.at(start, 4 * K * D), f.let(end.sub(start)), D, K * D);
      zeroRows(f, keyHead.dvalues.at(start, 4 * K * V), f.let(end.sub(start)), V, K * V);
      const [g, first] = [f.local('i32'), f.local('i32')];
      f.forRange(g, 0, group, 1, () => {
        const queryHead = queriesOf(batch, f.let(kvHead.mul(group).add(g)));
        f.forRange(first, 0, T, tile.rows, () => {
          queryBlock(keyHead, queryHead, first, { start, end }, wanted);
        });
      });
    }

    /** The gradient of one block of queries of one head. */
    function queriesItem(item: I32): void {
      // Last blocks first: with a causal mask they are the dear ones.
      const block = I32.of(blocks.queries - 1).sub(item.remS(blocks.queries));
      const rest = f.let(item.divS(blocks.queries));
      const batch = f.let(rest.divS(H));
      const head = f.let(rest.remS(H));
      const keyHead = keysOf(batch, f.let(head.divS(group)));
      const all = { start: I32.of(0), end: I32.of(S) };
      const first = f.let(block.mul(tile.rows));
      queryBlock(keyHead, queriesOf(batch, head), first, all, { keys: false, queries: true });
    }

    function place(base: Ptr | undefined, strides: HeadStrides, batch: I32, head: I32): Var<Ptr> {
      return f.let(base!.at(batch, 4 * strides.batch).at(head, 4 * strides.head));
    }

    function keysOf(batch: I32, head: I32) {
      return {
        keys: place(key, plan.key, batch, head),
        values: place(value, plan.value, batch, head),
        dkeys: f.let(dkey.at(batch, 4 * S * K * D).at(head, 4 * D)),
        dvalues: f.let(dvalue.at(batch, 4 * S * K * V).at(head, 4 * V)),
      };
    }

    function queriesOf(batch: I32, head: I32) {
      return {
        queries: place(query, plan.query, batch, head),
        douts: place(dout, plan.dout, batch, head),
        outs: f.let(out!.at(batch, 4 * T * H * V).at(head, 4 * V)),
        dqueries: f.let(dquery.at(batch, 4 * T * H * D).at(head, 4 * D)),
        /** Index of the head's first entry in lse. */
        stats: f.let(batch.mul(H).add(head).mul(T)),
      };
    }

    /** One block of queries with the blocks of keys in [part.start, part.end), which begins a block. */
    function queryBlock(
      keyHead: ReturnType<typeof keysOf>,
      queryHead: ReturnType<typeof queriesOf>,
      first: Var<I32>,
      part: { readonly start: I32; readonly end: I32 },
      wanted: Wanted,
    ): void {
      const rows = f.let(I32.of(T).sub(first).minS(tile.rows));
      const { from, to } = visible.range(first, f.let(first.add(rows).sub(1)));
      from.set(from.maxS(part.start));
      to.set(to.minS(part.end));
      const dq = f.let(queryHead.dqueries.at(first, 4 * H * D));
      f.if(
        from.ltS(to),
        () => {
          const q = f.let(queryHead.queries.at(first, 4 * queryRow));
          const go = f.let(queryHead.douts.at(first, 4 * doutRow));
          const stats = f.let(queryHead.stats.add(first));
          rowDeltas(rows, go, queryHead.outs.at(first, 4 * H * V), dlse?.at(stats, 4));
          const beta = f.local('f32', 0);
          const start = f.local('i32');
          f.forRange(start, from.divS(tile.columns).mul(tile.columns), to, tile.columns, () => {
            const begin = f.let(start.maxS(from));
            const count = f.let(start.add(tile.columns).minS(to).sub(begin));
            const queries = { q, go, dq, first, rows, lse: f.let(lse!.at(stats, 4)) };
            tileGradients(keyHead, queries, begin, count, beta, wanted);
            beta.set(1);
          });
        },
        () => {
          if (wanted.queries) zeroRows(f, dq, rows, D, H * D);
        },
      );
    }

    function tileGradients(
      keyHead: ReturnType<typeof keysOf>,
      queries: {
        readonly q: Ptr;
        readonly go: Ptr;
        readonly dq: Ptr;
        readonly first: I32;
        readonly rows: I32;
        readonly lse: Ptr;
      },
      begin: I32,
      count: I32,
      beta: Var<F32>,
      wanted: Wanted,
    ): void {
      const { q, go, dq, first, rows } = queries;
      const keys = f.let(keyHead.keys.at(begin, 4 * keyRow));
      const values = keyHead.values.at(begin, 4 * valueRow);
      const factor = scale * Math.LOG2E;
      f.call(gemm, [0, 1, rows, count, D, factor, q, queryRow, keys, keyRow, 0, scores, tileRow]);
      f.call(gemm, [0, 1, rows, count, V, 1, go, doutRow, values, valueRow, 0, dscores, tileRow]);
      p.set(scores);
      dp.set(dscores);
      lseAt.set(queries.lse);
      deltaAt.set(deltas);
      f.forRange(row, 0, rows, 1, () => {
        const part = visible.row(f.let(first.add(row)), begin, count);
        const bits = lseAt.f32().mul(Math.LOG2E);
        f.call(gradients, [p, count, part.from, part.to, dp, bits, deltaAt.f32()]);
        p.set(p.add(4 * tileRow));
        dp.set(dp.add(4 * tileRow));
        lseAt.set(lseAt.add(4));
        deltaAt.set(deltaAt.add(4));
      });
      if (wanted.keys) {
        const dv = keyHead.dvalues.at(begin, 4 * K * V);
        const dk = keyHead.dkeys.at(begin, 4 * K * D);
        f.call(gemm, [1, 0, count, V, rows, 1, scores, tileRow, go, doutRow, 1, dv, K * V]);
        f.call(gemm, [1, 0, count, D, rows, scale, dscores, tileRow, q, queryRow, 1, dk, K * D]);
      }
      if (wanted.queries) {
        f.call(gemm, [
          0,
          0,
          rows,
          D,
          count,
          scale,
          dscores,
          tileRow,
          keys,
          keyRow,
          beta,
          dq,
          H * D,
        ]);
      }
    }

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
function zeroRows(f: FunctionBuilder, base: Ptr, rows: I32, width: number, stride: number): void {
  if (width === stride) {
    f.fill(base, 0, rows.mul(4 * width));
    return;
  }
  const at = f.let(base);
  const i = f.local('i32');
  f.forRange(i, 0, rows, 1, () => {
    f.fill(at, 0, 4 * width);
    at.set(at.add(4 * stride));
  });
}

/**
 * C[b] = alpha op(A[b]) op(B[b]) + beta C[b], float32 accumulation. A workgroup of 16 x 16 invocations
 * computes a square tile of C, each invocation `block` x `block` of its elements; tiles of A and B
 * 16 deep pass through workgroup memory. Each element of C adds its products in order of k, so the
 * result does not depend on tile or block.
 *
 * Bindings: 0 launch block, 1 A, 2 B, 3 C, and with several batch entries 4: three words for each
 * (offsets of A, B, C in elements). Launch block: places of A, B, C in their buffers in words, then
 * alpha and beta. Operands that share a GPU buffer cannot be bound twice if one is written, so C must
 * lie in a buffer of its own; A and B may share one.
 */

import type { DType } from '../../core/dtype.ts';
import { ArgumentError } from '../../core/errors.ts';
import type { GemmCall } from '../../ir/op.ts';
import { UsedFunctions } from './library.ts';
import { elementsPerWord, KernelStorage, type WgslBinding } from './storage.ts';
import { u32Text, WgslText } from './text.ts';
import { dispatchSize, type Workgroups, writeEntryPoint } from './workgroups.ts';

export interface WgslMatmulOptions
  extends Pick<GemmCall, 'm' | 'n' | 'k' | 'transA' | 'transB' | 'lda' | 'ldb' | 'ldc'> {
  /** Batch entries; with one the batch table is left out. */
  readonly batch?: number;
  /** Storage of A and B: float32 (default), float16 or bfloat16. C is float32. */
  readonly dtypeA?: DType;
  readonly dtypeB?: DType;
  /** Whether C is read and scaled by beta; otherwise beta is 0 and C need not be initialized. */
  readonly accumulate?: boolean;
  /** Elements of C per invocation along each axis; default 4 for large products. */
  readonly block?: 1 | 2 | 4;
}

export interface WgslMatmul {
  readonly code: string;
  readonly entryPoint: string;
  readonly bindings: readonly WgslBinding[];
  readonly workgroups: Workgroups;
}

/** Invocations along each side of a workgroup, and depth of a tile. */
const side = 16;

/** Scalars of the launch block after the three places: see launchWords. */
export const matmulLaunch = { operands: 3, scalars: ['f32', 'f32'] } as const;

/** The WGSL of a matrix product. Throws ArgumentError for dtypes it does not read. */
export function generateWgslMatmul(options: WgslMatmulOptions): WgslMatmul {
  const { m, n, k } = options;
  const dtypeA = floatOperand(options.dtypeA ?? 'float32');
  const dtypeB = floatOperand(options.dtypeB ?? 'float32');
  const batch = options.batch ?? 1;
  const block = options.block ?? (Math.min(m, n) >= 4 * side ? 4 : 1);
  const tile = side * block;
  const functions = new UsedFunctions();
  const use = (operand: number, writes: boolean) => ({ operand, writes, atomic: false });
  const uses = [use(0, false), use(1, false), use(2, true)];
  const storage = new KernelStorage(matmulLaunch, uses, {}, functions);
  const tilesM = Math.max(1, Math.ceil(m / tile));
  const tilesN = Math.max(1, Math.ceil(n / tile));

  const body = new WgslText();
  // One spare column keeps the rows of a tile in different banks.
  body.line(`var<workgroup> tileA: array<f32, ${side * (tile + 1)}>;`);
  body.line(`var<workgroup> tileB: array<f32, ${side * (tile + 1)}>;`);
  writeEntryPoint(body, side * side, () => {
    body.line(`let column = local % ${side}u;`);
    body.line(`let line = local / ${side}u;`);
    body.line(`let entry = group / ${u32Text(tilesM * tilesN)};`);
    body.line(`let tileNumber = group % ${u32Text(tilesM * tilesN)};`);
    body.line(`let firstRow = tileNumber / ${u32Text(tilesN)} * ${tile}u;`);
    body.line(`let firstColumn = tileNumber % ${u32Text(tilesN)} * ${tile}u;`);
    // The dispatch may hold surplus workgroups; the whole group leaves before any barrier.
    body.line(`if (entry >= ${u32Text(batch)}) { return; }`);
    for (const [i, name] of ['A', 'B', 'C'].entries()) {
      body.line(`let start${name} = ${batch === 1 ? '0u' : `batches[entry * 3u + ${i}u]`};`);
    }
    for (let i = 0; i < block; i++) {
      for (let j = 0; j < block; j++) body.line(`var s${i}${j} = 0.0;`);
    }
    body.block(`for (var depth = 0u; depth < ${u32Text(k)}; depth += ${side}u)`, () => {
      const stepA = {
        rows: options.transA ? 1 : options.lda,
        depth: options.transA ? options.lda : 1,
      };
      const stepB = {
        rows: options.transB ? options.ldb : 1,
        depth: options.transB ? 1 : options.ldb,
      };
      const a: TileSource = {
        operand: 0,
        dtype: dtypeA,
        name: 'A',
        first: 'firstRow',
        size: m,
        ...stepA,
      };
      const b: TileSource = {
        operand: 1,
        dtype: dtypeB,
        name: 'B',
        first: 'firstColumn',
        size: n,
        ...stepB,
      };
      writeTileLoad(body, storage, a, k, block);
      writeTileLoad(body, storage, b, k, block);
      body.line('workgroupBarrier();');
      body.block(`for (var d = 0u; d < ${side}u; d++)`, () => {
        for (let i = 0; i < block; i++) {
          body.line(`let a${i} = tileA[d * ${tile + 1}u + line + ${i * side}u];`);
          body.line(`let b${i} = tileB[d * ${tile + 1}u + column + ${i * side}u];`);
        }
        for (let i = 0; i < block; i++) {
          for (let j = 0; j < block; j++) body.line(`s${i}${j} = fma(a${i}, b${j}, s${i}${j});`);
        }
      });
      body.line('workgroupBarrier();');
    });
    body.line(`let alpha = bitcast<f32>(${storage.scalarWord(0)});`);
    if (options.accumulate) body.line(`let beta = bitcast<f32>(${storage.scalarWord(1)});`);
    for (let i = 0; i < block; i++) {
      for (let j = 0; j < block; j++) {
        body.block('', () => {
          body.line(`let r = firstRow + line + ${i * side}u;`);
          body.line(`let c = firstColumn + column + ${j * side}u;`);
          body.block(`if (r < ${u32Text(m)} && c < ${u32Text(n)})`, () => {
            body.line(`let place = startC + r * ${u32Text(options.ldc)} + c;`);
            const old = options.accumulate
              ? ` + beta * ${storage.load(2, 'float32', 'place').text}`
              : '';
            const bits = `bitcast<u32>(alpha * s${i}${j}${old})`;
            storage.storeWord(body, 2, 'place', bits);
          });
        });
      }
    }
  });

  const text = new WgslText();
  storage.declare(text);
  const bindings: WgslBinding[] = [...storage.bindings];
  if (batch > 1) {
    bindings.push({ binding: 4, type: 'read-only-storage', operands: [] });
    text.line('@group(0) @binding(4) var<storage, read> batches: array<u32>;');
  }
  for (const definition of functions.definitions()) text.lines(definition);
  return {
    code: text.toString() + body.toString(),
    entryPoint: 'main',
    bindings,
    workgroups: dispatchSize(m * n === 0 ? 0 : tilesM * tilesN * batch),
  };
}

interface TileSource {
  readonly operand: number;
  readonly dtype: DType;
  readonly name: 'A' | 'B';
  /** Name of the first row (A) or column (B) of the tile, and how many there are in all. */
  readonly first: string;
  readonly size: number;
  /** Elements from one row or column to the next, and from one k to the next. */
  readonly rows: number;
  readonly depth: number;
}

/** Loads a tile so that neighbouring invocations read along the dense axis; outside is zero. */
function writeTileLoad(
  text: WgslText,
  storage: KernelStorage,
  source: TileSource,
  k: number,
  block: number,
): void {
  const tile = side * block;
  const alongDepth = source.depth === 1;
  for (let i = 0; i < block; i++) {
    text.block('', () => {
      const moving = alongDepth ? 'line' : 'column';
      text.line(`let x = ${moving} + ${i * side}u;`);
      text.line(`let d = ${alongDepth ? 'column' : 'line'};`);
      text.line(`let at = ${source.first} + x;`);
      text.line('var value = 0.0;');
      text.block(`if (at < ${u32Text(source.size)} && depth + d < ${u32Text(k)})`, () => {
        text.line(
          `let index = start${source.name} + at * ${u32Text(source.rows)} + (depth + d) * ${u32Text(source.depth)};`,
        );
        text.line(`value = ${storage.load(source.operand, source.dtype, 'index').text};`);
      });
      text.line(`tile${source.name}[d * ${tile + 1}u + x] = value;`);
    });
  }
}

function floatOperand(dtype: DType): DType {
  const readable = dtype === 'float32' || (elementsPerWord(dtype) === 2 && dtype.includes('float'));
  if (!readable) {
    throw new ArgumentError(
      `generateWgslMatmul: operands must be floating point (got ${dtype}). Convert them first.`,
      { dtype },
    );
  }
  return dtype;
}

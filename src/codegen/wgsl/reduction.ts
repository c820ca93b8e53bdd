/**
 * Kernels with reductions. A workgroup holds `rows` kept points with `lanes` invocations each. Lane l of
 * a row takes the reduced elements l, l + lanes, l + 2 lanes, ... (row-major over the reduced axes) one
 * by one; the lanes' partial results then meet in a halving tree in workgroup memory: lane j takes in
 * lane j + lanes / 2, then j + lanes / 4, and so on. `lanes` and so the order, depend on the space and the
 * reduced axes only. It is not the order of the CPU backends; with one lane it is plain row-major.
 *
 * If the innermost axis is reduced, neighbouring invocations are lanes of one row, else neighbouring
 * rows, so that they read neighbouring memory either way. Dependent reductions (softmax) run one
 * after the other with a pass over the row each; values that do not vary along the row are computed
 * between the passes. All passes end before the row's outputs are written.
 */

import { invariant } from '../../core/errors.ts';
import { numElements } from '../../core/shape.ts';
import { type ComputeType, type Expr, operands, type ReduceOp } from '../../ir/expr.ts';
import type { KernelSpec } from '../../ir/kernel.ts';
import { reduceCombine, reduceNeutral } from '../../ir/kernel-space.ts';
import { binaryText, constantText } from './expressions.ts';
import type { UsedFunctions } from './library.ts';
import { type KernelProgram, lineName, type PointWriter, writeCoordinates } from './points.ts';
import { elementsPerWord, type KernelStorage } from './storage.ts';
import { indexText, powerOfTwoAtLeast, u32Text, type WgslText } from './text.ts';
import { placedBits, planWords, type WordPlan } from './words.ts';
import { quotientText, remainderText, writeEntryPoint } from './workgroups.ts';

export interface RowShape {
  /** Kept points, and reduced elements of each. */
  readonly kept: number;
  readonly length: number;
  readonly keptAxes: readonly number[];
  /** Kept points and lanes per workgroup; both powers of two. */
  readonly rows: number;
  readonly lanes: number;
  /** Whether neighbouring invocations are lanes of one row. */
  readonly lanesInner: boolean;
}

const maxInvocations = 256;
const fewestInvocations = 64;
const columnWidth = 32;

/** The division of a reduction kernel's space; a function of the space and the reduced axes only. */
export function rowShape(spec: KernelSpec): RowShape {
  const reduced = new Set(spec.reduced);
  const keptAxes = [...spec.space.keys()].filter((axis) => !reduced.has(axis));
  const kept = numElements(keptAxes.map((axis) => spec.space[axis]!));
  const length = numElements(spec.reduced.map((axis) => spec.space[axis]!));
  const innermost = spec.space.findLastIndex((dim) => dim > 1);
  const lanesInner = innermost < 0 || reduced.has(innermost);
  const most = powerOfTwoAtLeast(Math.max(1, length));
  if (lanesInner) {
    const lanes = Math.min(maxInvocations, most);
    return {
      kept,
      length,
      keptAxes,
      rows: Math.max(1, fewestInvocations / lanes),
      lanes,
      lanesInner,
    };
  }
  const rows = Math.min(columnWidth, powerOfTwoAtLeast(Math.max(1, kept)));
  const lanes = Math.min(maxInvocations / rows, Math.max(1, most / 8));
  return { kept, length, keptAxes, rows, lanes, lanesInner };
}

/** Per program line: whether it differs along the row, and how many reductions must come before. */
interface Stages {
  readonly varies: readonly boolean[];
  readonly level: readonly number[];
  readonly last: number;
}

export function reductionStages(spec: KernelSpec, program: KernelProgram): Stages {
  const reduced = new Set(spec.reduced.filter((axis) => spec.space[axis]! > 1));
  const varies: boolean[] = [];
  const level: number[] = [];
  for (const { node, operands: parts } of program.lines) {
    const below = Math.max(0, ...parts.map((part) => level[part]!));
    const mixed = parts.some((part) => varies[part]!);
    level.push(node.kind === 'reduce' ? below + 1 : below);
    varies.push(node.kind === 'reduce' ? false : mixed || leafVaries(spec, node, reduced));
  }
  return { varies, level, last: Math.max(0, ...level) };
}

/** Outputs stored at each point of the row; the others are stored once per row. */
export function pointOutputs(spec: KernelSpec, stages: Stages, program: KernelProgram): number[] {
  const moves = (k: number): boolean =>
    spec.reduced.some((axis) => spec.space[axis]! > 1 && spec.outputs[k]!.strides[axis] !== 0);
  return [...spec.outputs.keys()].filter((k) => {
    const varying = stages.varies[program.roots[k]!]!;
    invariant(!varying || moves(k), () => `output ${k} varies along the row but has one element`);
    return moves(k);
  });
}

/** Whole-word writing along rows: only for rows that lie densely, one after the other. */
export function rowWords(spec: KernelSpec, shape: RowShape, outputs: readonly number[]): WordPlan {
  const trailing = spec.reduced.every(
    (axis) => !shape.keptAxes.some((kept) => kept > axis && spec.space[kept]! > 1),
  );
  if (!trailing) return { points: 1, lead: 0, whole: new Set() };
  return planWords(spec, outputs, { run: shape.length });
}

export function writeReduction(
  text: WgslText,
  spec: KernelSpec,
  shape: RowShape,
  plan: WordPlan,
  writer: PointWriter,
  storage: KernelStorage,
  functions: UsedFunctions,
): void {
  const { program } = writer;
  const stages = reductionStages(spec, program);
  const { lanes, rows, lanesInner } = shape;
  const perPoint = pointOutputs(spec, stages, program);
  const perRow = [...spec.outputs.keys()].filter((k) => !perPoint.includes(k));
  const rowLines = (level: number): number[] =>
    [...program.lines.keys()].filter(
      (i) =>
        !stages.varies[i] && stages.level[i] === level && program.lines[i]!.node.kind !== 'reduce',
    );
  const allRowLines = [...program.lines.keys()].filter((i) => !stages.varies[i]);

  writeEntryPoint(text, rows * lanes, () => {
    const [inner, outer] = lanesInner ? [lanes, 'slot'] : [rows, 'lane'];
    text.line(`let ${lanesInner ? 'lane' : 'slot'} = ${remainderText('local', inner)};`);
    text.line(`let ${outer} = ${quotientText('local', inner)};`);
    text.line(`let place = group * ${u32Text(rows)} + slot;`);
    // Surplus slots repeat the last row, so that every invocation reaches every barrier.
    text.line(`let row = min(place, ${u32Text(shape.kept - 1)});`);
    const wanted = writer.wantedAxes([...program.lines.keys()], [...spec.outputs.keys()]);
    writeCoordinates(text, spec, shape.keptAxes, 'row', wanted);
    writer.write(text, rowLines(0));
    for (let level = 1; level <= stages.last; level++) {
      writePass(text, spec, shape, level, stages, writer, functions);
      writer.write(text, rowLines(level));
    }
    text.block(`if (place < ${u32Text(shape.kept)})`, () => {
      if (perPoint.length > 0) {
        writePointOutputs(text, spec, shape, plan, perPoint, stages, writer, storage);
      }
      if (perRow.length > 0) {
        invariant(
          perRow.every((k) => allRowLines.includes(program.roots[k]!)),
          () => 'an output stored once per row varies along it',
        );
        text.block('if (lane == 0u)', () => {
          for (const output of perRow) writer.store(text, output);
        });
      }
    });
  });
}

/** Declarations of the workgroup memory and the trees that a reduction kernel uses. */
export function writeTrees(
  text: WgslText,
  program: KernelProgram,
  shape: RowShape,
  functions: UsedFunctions,
): void {
  if (shape.lanes === 1) return;
  const reduces = program.lines.flatMap(({ node }) => (node.kind === 'reduce' ? [node] : []));
  const types = new Set(reduces.map((node) => accumulatorType(node.type)));
  for (const type of types) {
    text.line(`var<workgroup> partial_${type}: array<${type}, ${shape.rows * shape.lanes}>;`);
  }
  const done = new Set<string>();
  for (const { op, type } of reduces) {
    const name = treeName(op, type);
    if (done.has(name)) continue;
    done.add(name);
    writeTree(text, name, op, accumulatorType(type), shape, functions);
  }
}

function leafVaries(spec: KernelSpec, node: Expr, reduced: ReadonlySet<number>): boolean {
  switch (node.kind) {
    case 'input':
      return [...reduced].some((axis) => spec.inputs[node.index]!.strides[axis] !== 0);
    case 'coord':
      return reduced.has(node.axis);
    case 'linear':
      return reduced.size > 0;
    default:
      invariant(
        operands(node).length > 0 || node.kind === 'const' || node.kind === 'scalar',
        () => `unknown leaf ${node.kind}`,
      );
      return false;
  }
}

/** The varying lines that `targets` need, ascending. */
function varyingLines(
  targets: readonly number[],
  stages: Stages,
  program: KernelProgram,
): number[] {
  const needed = new Set<number>();
  const visit = (line: number): void => {
    if (!stages.varies[line] || needed.has(line)) return;
    needed.add(line);
    program.lines[line]!.operands.forEach(visit);
  };
  targets.forEach(visit);
  return [...needed].sort((a, b) => a - b);
}

function writePass(
  text: WgslText,
  spec: KernelSpec,
  shape: RowShape,
  level: number,
  stages: Stages,
  writer: PointWriter,
  functions: UsedFunctions,
): void {
  const { lines } = writer.program;
  const reduces = [...lines.keys()].flatMap((line) => {
    const { node, operands: parts } = lines[line]!;
    return node.kind === 'reduce' && stages.level[line] === level
      ? [{ line, op: node.op, type: node.type, operand: parts[0]! }]
      : [];
  });
  for (const { line, op, type } of reduces) {
    const neutral = neutralText(op, type, functions);
    text.line(`var a${line}: ${accumulatorType(type)} = ${neutral};`);
  }
  text.block(rowLoop(shape), () => {
    const needed = varyingLines(
      reduces.map(({ operand }) => operand),
      stages,
      writer.program,
    );
    writeCoordinates(text, spec, spec.reduced, 'r', writer.wantedAxes(needed, []));
    writer.write(text, needed);
    for (const { line, op, type, operand } of reduces) {
      const value = type === 'bool' ? `u32(${lineName(operand)})` : lineName(operand);
      text.line(`a${line} = ${combineText(op, type, `a${line}`, value, functions)};`);
    }
  });
  for (const { line, op, type } of reduces) {
    const total = shape.lanes === 1 ? `a${line}` : `${treeName(op, type)}(a${line}, local)`;
    text.line(`let ${lineName(line)}: ${type} = ${type === 'bool' ? `${total} != 0u` : total};`);
  }
}

function writePointOutputs(
  text: WgslText,
  spec: KernelSpec,
  shape: RowShape,
  plan: WordPlan,
  outputs: readonly number[],
  stages: Stages,
  writer: PointWriter,
  storage: KernelStorage,
): void {
  const { program } = writer;
  const needed = varyingLines(
    outputs.map((k) => program.roots[k]!),
    stages,
    program,
  );
  const wanted = writer.wantedAxes(needed, outputs);
  const writePoint = (): void => {
    writeCoordinates(text, spec, spec.reduced, 'r', wanted);
    writer.write(text, needed);
  };
  if (plan.points === 1) {
    text.block(rowLoop(shape), () => {
      writePoint();
      for (const output of outputs) writer.store(text, output);
    });
    return;
  }
  const wordsOf = (k: number): number => plan.points / elementsPerWord(spec.outputs[k]!.dtype);
  const groups = shape.length / plan.points;
  text.block(`for (var g = lane; g < ${u32Text(groups)}; g += ${u32Text(shape.lanes)})`, () => {
    for (const k of plan.whole) {
      for (let q = 0; q < wordsOf(k); q++) text.line(`var word${k}w${q} = 0u;`);
    }
    for (let j = 0; j < plan.points; j++) {
      text.block('', () => {
        text.line(`let r = g * ${u32Text(plan.points)} + ${u32Text(j)};`);
        writePoint();
        for (const k of outputs) {
          if (!plan.whole.has(k)) {
            writer.store(text, k);
            continue;
          }
          const perWord = elementsPerWord(spec.outputs[k]!.dtype);
          const bits = placedBits(writer.bits(k), perWord, j);
          text.line(`word${k}w${Math.floor(j / perWord)} |= ${bits};`);
        }
      });
    }
    for (const k of plan.whole) {
      const { operand, dtype, offset } = spec.outputs[k]!;
      const perWord = elementsPerWord(dtype);
      for (let q = 0; q < wordsOf(k); q++) {
        const index = indexText(undefined, offset / perWord + q, [
          { name: 'row', step: shape.length / perWord },
          { name: 'g', step: wordsOf(k) },
        ]);
        storage.storeWord(text, operand, index, `word${k}w${q}`);
      }
    }
  });
}

function rowLoop(shape: RowShape): string {
  return `for (var r = lane; r < ${u32Text(shape.length)}; r += ${u32Text(shape.lanes)})`;
}

function accumulatorType(type: ComputeType): 'f32' | 'i32' | 'u32' {
  return type === 'bool' ? 'u32' : type;
}

function treeName(op: ReduceOp, type: ComputeType): string {
  return `row_${op}_${type}`;
}

function writeTree(
  text: WgslText,
  name: string,
  op: ReduceOp,
  type: 'f32' | 'i32' | 'u32',
  shape: RowShape,
  functions: UsedFunctions,
): void {
  const { lanes, rows, lanesInner } = shape;
  const memory = `partial_${type}`;
  const logical: ComputeType = name.endsWith('bool') ? 'bool' : type;
  text.block(`fn ${name}(value: ${type}, local: u32) -> ${type}`, () => {
    text.line(`${memory}[local] = value;`);
    text.line('workgroupBarrier();');
    text.line(
      `let lane = ${lanesInner ? remainderText('local', lanes) : quotientText('local', rows)};`,
    );
    for (let half = lanes / 2; half >= 1; half /= 2) {
      const other = `${memory}[local + ${u32Text(lanesInner ? half : half * rows)}]`;
      const sum = combineText(op, logical, `${memory}[local]`, other, functions);
      text.line(`if (lane < ${u32Text(half)}) { ${memory}[local] = ${sum}; }`);
      text.line('workgroupBarrier();');
    }
    const first = lanesInner ? '(local - lane)' : remainderText('local', rows);
    text.line(`let total = ${memory}[${first}];`);
    text.line('workgroupBarrier();');
    text.line('return total;');
  });
}

/** Booleans reduce as 0/1 words: sum and max are "any", prod and min are "all". */
function combineText(
  op: ReduceOp,
  type: ComputeType,
  a: string,
  b: string,
  functions: UsedFunctions,
): string {
  if (type === 'bool') return op === 'sum' || op === 'max' ? `${a} | ${b}` : `${a} & ${b}`;
  return binaryText(reduceCombine[op], a, b, type, functions);
}

function neutralText(op: ReduceOp, type: ComputeType, functions: UsedFunctions): string {
  const neutral = reduceNeutral(op, type);
  invariant(neutral.kind === 'const', () => `the neutral element of ${op} is not a constant`);
  return constantText(neutral.value, accumulatorType(type), functions);
}

/** Shapes, strides and broadcasting. Shapes are row-major; strides count elements, not bytes. */

import { ShapeError } from './errors.ts';

export type Shape = readonly number[];

/** Where the elements of a view lie inside its storage; offset and strides count elements. */
export interface Layout {
  readonly offset: number;
  readonly strides: readonly number[];
}

export function numElements(shape: Shape): number {
  let count = 1;
  for (const dim of shape) count *= dim;
  return count;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

/** Row-major strides of a dense tensor of this shape. */
export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = step;
    step *= shape[axis] ?? 1;
  }
  return strides;
}

/** Whether the layout is dense and row-major; axes of size one or empty tensors do not matter. */
export function isContiguous(shape: Shape, strides: readonly number[]): boolean {
  if (shape.includes(0)) return true;
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const dim = shape[axis] ?? 1;
    if (dim !== 1 && strides[axis] !== step) return false;
    step *= dim;
  }
  return true;
}

export function formatShape(shape: Shape): string {
  return `[${shape.join(', ')}]`;
}

/** The common shape of `shapes` under NumPy broadcasting; throws ShapeError naming the axis. */
export function broadcastShapes(who: string, ...shapes: readonly Shape[]): number[] {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length));
  const out = new Array<number>(rank).fill(1);
  for (const shape of shapes) {
    const lead = rank - shape.length;
    shape.forEach((dim, i) => {
      const have = out[lead + i] ?? 1;
      if (dim === have || dim === 1) return;
      if (have !== 1) {
        throw new ShapeError(
          `${who}: shapes ${shapes.map(formatShape).join(' and ')} do not broadcast: axis ${i - shape.length} ` +
            `has sizes ${have} and ${dim}. Make the sizes equal, or one of them 1.`,
          { shapes, axis: i - shape.length },
        );
      }
      out[lead + i] = dim;
    });
  }
  return out;
}

/** Strides with which a tensor of `shape`/`strides` is read when broadcast to `target`. */
export function broadcastStrides(
  shape: Shape,
  strides: readonly number[],
  target: Shape,
): number[] {
  const lead = target.length - shape.length;
  return target.map((_, axis) => {
    const own = axis - lead;
    return own < 0 || shape[own] === 1 ? 0 : (strides[own] ?? 0);
  });
}

/** `axis` counted from the front; negative axes count from the end. Throws ShapeError. */
export function normalizeAxis(who: string, axis: number, rank: number): number {
  if (!Number.isInteger(axis) || axis < -Math.max(rank, 1) || axis >= Math.max(rank, 1)) {
    throw new ShapeError(
      `${who}: axis ${axis} is out of range for a tensor of ${rank} axes. ` +
        `Use an integer from ${-rank} to ${rank - 1}.`,
      { axis, rank },
    );
  }
  return axis < 0 ? axis + rank : axis;
}

/** All of `axes` counted from the front, sorted, without repeats; `undefined` means every axis. */
export function normalizeAxes(
  who: string,
  axes: number | readonly number[] | undefined,
  rank: number,
): number[] {
  if (axes === undefined) return Array.from({ length: rank }, (_, axis) => axis);
  const list = typeof axes === 'number' ? [axes] : axes;
  const out = list.map((axis) => normalizeAxis(who, axis, rank)).sort((a, b) => a - b);
  if (new Set(out).size !== out.length) {
    throw new ShapeError(
      `${who}: an axis is named twice (got [${list.join(', ')}]). Name each once.`,
      {
        axes: list,
      },
    );
  }
  return out;
}

/**
 * Strides for viewing a tensor of `shape`/`strides` as `target` without moving data, or undefined
 * when a copy is needed (torch.Tensor.view).
 */
export function viewStrides(
  shape: Shape,
  strides: readonly number[],
  target: Shape,
): number[] | undefined {
  if (numElements(shape) === 0) return contiguousStrides(target);
  const out = new Array<number>(target.length);
  let axis = shape.length - 1;
  let t = target.length - 1;
  while (axis >= 0 || t >= 0) {
    // Take one maximal group of source axes that lie densely inside each other.
    let groupSize = axis >= 0 ? (shape[axis] ?? 1) : 1;
    const base = axis >= 0 ? (strides[axis] ?? 1) : 1;
    let step = base * groupSize;
    axis--;
    while (axis >= 0 && ((shape[axis] ?? 1) === 1 || groupSize === 1 || strides[axis] === step)) {
      if (groupSize === 1 && (shape[axis] ?? 1) !== 1) break;
      const dim = shape[axis] ?? 1;
      groupSize *= dim;
      if (dim !== 1) step = (strides[axis] ?? 1) * dim;
      axis--;
    }
    let filled = 1;
    let stride = base;
    while (t >= 0 && (filled < groupSize || (target[t] ?? 1) === 1)) {
      const dim = target[t] ?? 1;
      out[t] = stride;
      stride *= dim;
      filled *= dim;
      t--;
    }
    if (filled !== groupSize) return undefined;
    if (axis < 0 && t >= 0 && (target[t] ?? 1) !== 1) return undefined;
  }
  return out;
}

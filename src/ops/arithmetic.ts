/** add, sub, mul, div, pow, maximum, minimum. */

import { type Expr, e } from '../ir/expr.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type Operand, binary } from './binary.ts';

const isBool = (x: Expr): boolean => x.type === 'bool';

const addition = binary({
  name: 'add',
  dtypes: 'any',
  expr: (a, b) => (isBool(a) ? e.binary('or', a, b) : e.add(a, b)),
});
export const addOp = addition.op;
export const addScalarOp = addition.scalarOp;

/** a + b with broadcasting (torch.add); for bools, a or b. */
export function add(a: Operand, b: Operand): Tensor {
  return addition.call(a, b);
}

const subtraction = binary({ name: 'sub', dtypes: 'number', expr: e.sub });
export const subOp = subtraction.op;
export const subScalarOp = subtraction.scalarOp;

/** a - b with broadcasting (torch.sub). Throws DTypeError for two bools. */
export function sub(a: Operand, b: Operand): Tensor {
  return subtraction.call(a, b);
}

const multiplication = binary({
  name: 'mul',
  dtypes: 'any',
  expr: (a, b) => (isBool(a) ? e.binary('and', a, b) : e.mul(a, b)),
});
export const mulOp = multiplication.op;
export const mulScalarOp = multiplication.scalarOp;

/** a * b with broadcasting (torch.mul); for bools, a and b. */
export function mul(a: Operand, b: Operand): Tensor {
  return multiplication.call(a, b);
}

const division = binary({
  name: 'div',
  dtypes: 'float',
  expr: e.div,
  ranges: [
    [-2, 2],
    [0.5, 2],
  ],
});
export const divOp = division.op;
export const divScalarOp = division.scalarOp;

/** a / b with broadcasting (torch.div, true division); integers give float32. */
export function div(a: Operand, b: Operand): Tensor {
  return division.call(a, b);
}

const power = binary({
  name: 'pow',
  dtypes: 'float',
  expr: (a, b) => e.binary('pow', a, b),
  ranges: [
    [0.3, 2],
    [-2, 3],
  ],
});
export const powOp = power.op;
export const powScalarOp = power.scalarOp;

/** a to the power b with broadcasting (torch.pow); integers give float32. */
export function pow(a: Operand, b: Operand): Tensor {
  return power.call(a, b);
}

const larger = binary({
  name: 'maximum',
  dtypes: 'any',
  expr: (a, b) => (isBool(a) ? e.binary('or', a, b) : e.binary('max', a, b)),
});
export const maximumOp = larger.op;
export const maximumScalarOp = larger.scalarOp;

/** The larger of a and b, NaN if either is (torch.maximum). A tie sends half the gradient each way. */
export function maximum(a: Operand, b: Operand): Tensor {
  return larger.call(a, b);
}

const smaller = binary({
  name: 'minimum',
  dtypes: 'any',
  expr: (a, b) => (isBool(a) ? e.binary('and', a, b) : e.binary('min', a, b)),
});
export const minimumOp = smaller.op;
export const minimumScalarOp = smaller.scalarOp;

/** The smaller of a and b, NaN if either is (torch.minimum). A tie sends half the gradient each way. */
export function minimum(a: Operand, b: Operand): Tensor {
  return smaller.call(a, b);
}

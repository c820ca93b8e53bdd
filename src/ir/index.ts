/** Public entry of ir: the op contract, kernels and graphs. */

export { type Aval, aval, avalBytes, formatAval } from './aval.ts';
export { type Expr, e, mapExpr, printExprs } from './expr.ts';
export { type KernelInput, type KernelOutput, type KernelSpec, kernelKey } from './kernel.ts';
export type {
  AnyOp,
  Cost,
  KernelTemplate,
  Lowering,
  Op,
  OpClass,
  Params,
  RematClass,
  Routine,
  Sample,
  Traits,
  Vjp,
} from './op.ts';
export { type Graph, type Node, type NodeMeta, type Value, GraphBuilder, usesOf } from './graph.ts';
export { printGraph } from './print.ts';
export { verifyGraph } from './verify.ts';

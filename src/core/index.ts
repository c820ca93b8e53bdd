/** Public entry of core: dtypes, shapes, errors, host tensors. */

export type { ByteBudget } from './byte-budget.ts';
export { formatBytes, parseBytes } from './bytes.ts';
export { type DType, bytesPerElement, dtypeNames, isDType, promoteDTypes } from './dtype.ts';
export {
  ArgumentError,
  AutogradError,
  CheckpointError,
  CompileError,
  ConfigError,
  DTypeError,
  DisposedError,
  FileError,
  InfeasibleBudgetError,
  InternalError,
  OutOfMemoryError,
  RetuneError,
  ShapeError,
  UnsupportedError,
} from './errors.ts';
export { type HostTensor, type NumberArray, hostTensor, hostValues } from './host-tensor.ts';
export { type Layout, type Shape, broadcastShapes, formatShape, numElements } from './shape.ts';
export { philox, unitFloat } from './random.ts';
export { envDescriptions } from './env.ts';

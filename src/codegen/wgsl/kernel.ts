/**
 * From a KernelSpec to a WGSL compute shader. The spec is brought to normal form, then written as a
 * pointwise kernel or as a reduction of rows or columns. Pure text: nothing here touches a device.
 */

import { UnsupportedError } from '../../core/errors.ts';
import { numElements } from '../../core/shape.ts';
import { type KernelSpec, kernelKey } from '../../ir/kernel.ts';
import { normalizeKernel } from '../../ir/kernel-space.ts';
import { UsedFunctions } from './library.ts';
import { type KernelProgram, kernelProgram, PointWriter } from './points.ts';
import { pointwiseGroups, writePointwise } from './pointwise.ts';
import {
  pointOutputs,
  reductionStages,
  rowShape,
  rowWords,
  writeReduction,
  writeTrees,
} from './reduction.ts';
import {
  elementsPerWord,
  KernelStorage,
  launchBytes,
  type StorageOptions,
  type WgslBinding,
} from './storage.ts';
import { WgslText } from './text.ts';
import { planWords, type WordPlan } from './words.ts';
import { dispatchSize, type Workgroups } from './workgroups.ts';

export interface WgslKernel {
  readonly code: string;
  readonly entryPoint: string;
  /** Binding 0 is the launch block; see launchWords. */
  readonly bindings: readonly WgslBinding[];
  /** Dispatch size; zeros where there is nothing to do. */
  readonly workgroups: Workgroups;
}

export type WgslKernelOptions = StorageOptions;

/** Largest number of points a kernel may have: indices are u32 and may run past the end a little. */
const maxPoints = 2 ** 31;

/**
 * The WGSL of a kernel. Offsets in the spec count elements; the place of an operand in its buffer is
 * given at launch and must be a multiple of 4 bytes. Throws UnsupportedError for spaces of more than
 * 2^31 points and for more storage buffers than the device has.
 */
export function generateWgslKernel(spec: KernelSpec, options: WgslKernelOptions = {}): WgslKernel {
  const points = numElements(spec.space);
  if (points > maxPoints) {
    throw new UnsupportedError(
      `generateWgslKernel: the kernel has too many points (got ${points}). Split it below 2^31.`,
      { points },
    );
  }
  const normal = normalizeKernel(spec);
  const program = kernelProgram(normal);
  const functions = new UsedFunctions();
  const shape = normal.reduced.length > 0 ? rowShape(normal) : undefined;
  const plan = shape
    ? rowWords(normal, shape, pointOutputs(normal, reductionStages(normal, program), program))
    : planWords(normal, [...normal.outputs.keys()]);
  const storage = new KernelStorage(normal, storageUses(normal, program, plan), options, functions);

  const body = new WgslText();
  if (shape) {
    const writer = new PointWriter({ spec: normal, program, storage, functions });
    writeTrees(body, program, shape, functions);
    writeReduction(body, normal, shape, plan, writer, storage, functions);
  } else {
    const writer = new PointWriter({ spec: normal, program, storage, functions, linear: 'i' });
    writePointwise(body, normal, plan, writer, storage);
  }

  const text = new WgslText();
  text.line(`// ${kernelKey(normal)}`);
  storage.declare(text);
  for (const definition of functions.definitions()) text.lines(definition);
  const groups = shape ? Math.ceil(shape.kept / shape.rows) : pointwiseGroups(normal, plan);
  return {
    code: text.toString() + body.toString(),
    entryPoint: 'main',
    bindings: storage.bindings,
    workgroups: dispatchSize(groups),
  };
}

/**
 * The words of binding 0: the place of each operand in its buffer (bytes, multiples of 4), then the
 * scalars by type (f32 bits, or integers). The array has whole vectors of four words.
 */
export function launchWords(
  spec: Pick<KernelSpec, 'operands' | 'scalars'>,
  byteOffsets: readonly number[],
  scalars: readonly number[],
): Uint32Array {
  const words = new Uint32Array(launchBytes(spec.operands, spec.scalars.length) / 4);
  const floats = new Float32Array(words.buffer);
  for (let k = 0; k < spec.operands; k++) words[k] = (byteOffsets[k] ?? 0) / 4;
  spec.scalars.forEach((type, k) => {
    const value = scalars[k] ?? 0;
    if (type === 'f32') floats[spec.operands + k] = value;
    else words[spec.operands + k] = value;
  });
  return words;
}

function storageUses(spec: KernelSpec, program: KernelProgram, plan: WordPlan) {
  const reads = program.lines.flatMap(({ node }) =>
    node.kind === 'input'
      ? [{ operand: spec.inputs[node.index]!.operand, writes: false, atomic: false }]
      : [],
  );
  const writes = spec.outputs.map(({ operand, dtype }, k) => ({
    operand,
    writes: true,
    atomic: elementsPerWord(dtype) > 1 && !plan.whole.has(k),
  }));
  return [...reads, ...writes];
}

/**
 * `apply`: the only way an op happens. In order: infer the outputs; decide whether backward wants a
 * node; pack saved inputs; let the current mode run the op; pack saved outputs; attach the node.
 * Handles register in the scope when they are made.
 */

import { AutogradError, invariant } from '../core/errors.ts';
import { isFloat } from '../core/dtype.ts';
import type { Aval } from '../ir/aval.ts';
import { type AnyOp, type Params, noParams, savedNames, savedOutputIndex } from '../ir/op.ts';
import { currentModule, isGradEnabled } from './context.ts';
import { type CustomBackward, GraphNode, edgeOf } from './graph-node.ts';
import { currentMode } from './mode.ts';
import { type SaveContext, SavedTensor, currentHooks } from './saved-tensor.ts';
import { type TapeNode, Tensor } from './tensor.ts';

/** Applies `op`; returns one tensor per output. */
export function apply(op: AnyOp, inputs: readonly Tensor[], params: Params = noParams): Tensor[] {
  const avals = inputs.map((input) => input.aval);
  const outputs = op.infer(avals, params);
  const hooks = currentHooks();
  if (hooks?.boundary) hooks.boundary();
  const node = makeNode(op, inputs, avals, outputs, params)?.retain();
  try {
    const saves = node ? savedNames(op, params, (i) => node.edges[i] !== undefined) : [];
    if (node) packInputs(node, op, inputs, saves);
    if (node && hooks?.boundary && !savesOutputs(saves)) hooks.boundary();
    const results = run(op, inputs, params, outputs);
    if (node) finishNode(node, op, results, saves);
    if (op.lower.kind === 'view') {
      recordView(op, params, inputs[0], results[0]);
      shareStandIn(inputs[0], results[0]);
    }
    return results;
  } finally {
    node?.release();
  }
}

/** Attaches the node and packs saved outputs. Hooks may throw: then nobody gets the results. */
function finishNode(
  node: TapeNode,
  op: AnyOp,
  results: readonly Tensor[],
  saves: readonly string[],
): void {
  try {
    results.forEach((result, i) => {
      if (isFloat(result.dtype)) result.attach(node.retain(), i);
    });
    packOutputs(node, op, results, saves);
    currentHooks()?.boundary?.();
  } catch (error) {
    for (const result of results) result.dispose();
    throw error;
  }
}

/** `apply` for ops with one output. */
export function apply1(op: AnyOp, inputs: readonly Tensor[], params: Params = noParams): Tensor {
  const result = apply(op, inputs, params)[0];
  invariant(result, () => `${op.name} has no output`);
  return result;
}

/**
 * Attaches a backward that is a closure to tensors computed without recording
 * (torch.autograd.Function). `saved` go through the saved-tensor hooks. Returns `outputs`.
 */
export function attachBackward(
  custom: CustomBackward<Tensor>,
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
  saved: readonly Tensor[],
): readonly Tensor[] {
  if (!isGradEnabled() || !inputs.some((input) => input.requiresGrad)) return outputs;
  const node = new GraphNode({
    custom,
    params: {},
    inputs: inputs.map((input) => input.aval),
    outputs: outputs.map((output) => output.aval),
    module: currentModule(),
    edges: inputs.map(edgeOf),
  }).retain();
  try {
    saved.forEach((tensor, i) => {
      const own = outputs.indexOf(tensor);
      const context = { op: custom.name, name: String(i), module: node.module };
      node.saved.set(String(i), new SavedTensor(tensor, context, own < 0 ? undefined : own));
    });
    outputs.forEach((output, i) => {
      if (isFloat(output.dtype)) output.attach(node.retain(), i);
    });
  } finally {
    node.release();
  }
  currentHooks()?.boundary?.();
  return outputs;
}

function run(
  op: AnyOp,
  inputs: readonly Tensor[],
  params: Params,
  outputs: readonly Aval[],
): Tensor[] {
  const data = currentMode().run(op, inputs, params, outputs);
  for (const { input } of op.traits.updates ?? []) inputs[input]?.data.bumpVersion();
  return outputs.map((aval, i) => {
    const own = data[i];
    invariant(own, () => `${op.name} returned ${data.length} outputs, expected ${outputs.length}`);
    return new Tensor(own, aval.shape, aval.dtype);
  });
}

/** A view's history follows in-place changes of what it looks into, and the other way round. */
function recordView(
  op: AnyOp,
  params: Params,
  input: Tensor | undefined,
  view: Tensor | undefined,
): void {
  if (!input || !view || !isFloat(view.dtype) || !sharesMemory(input, view)) return;
  if (!isGradEnabled()) view.markUnrecorded();
  else {
    const { aval } = view;
    input.addView(view, { op, params, input: input.aval, output: aval, module: currentModule() });
  }
}

/** Whoever saves a view of a tensor that has a stand-in keeps that too. */
function shareStandIn(input: Tensor | undefined, view: Tensor | undefined): void {
  const standIn = input?.standIn;
  if (!standIn || !view || standIn.coversViews === false || !sharesMemory(input, view)) return;
  view.standIn = standIn.retain();
}

/** Where the memory could not be viewed the result is a copy; a trace always views. */
function sharesMemory(input: Tensor, view: Tensor): boolean {
  return view.data.kind !== 'buffer' || view.data.root === input.data.root;
}

function makeNode(
  op: AnyOp,
  inputs: readonly Tensor[],
  avals: readonly Aval[],
  outputs: readonly Aval[],
  params: Params,
): TapeNode | undefined {
  if (!isGradEnabled() || !inputs.some((input) => input.requiresGrad)) return undefined;
  for (const { input } of op.traits.updates ?? []) {
    const updated = inputs[input];
    if (updated) checkUpdatable(op, updated);
  }
  if (op.vjp === 'nondifferentiable' || !outputs.some((output) => isFloat(output.dtype))) {
    return undefined;
  }
  return new GraphNode({
    op,
    params,
    inputs: avals,
    outputs,
    module: currentModule(),
    edges: inputs.map(edgeOf),
  });
}

/** Throws AutogradError for a tensor that must not be changed in place while gradients are recorded. */
function checkUpdatable(op: AnyOp, updated: Tensor): void {
  const { lineage } = updated;
  const ofLeaf = lineage?.lineage.edge?.kind === 'leaf' && lineage.steps.length > 0;
  if ((updated.requiresGrad && updated.isLeaf) || ofLeaf) {
    const what = ofLeaf ? 'a view of a leaf' : 'a leaf';
    throw new AutogradError(
      `${op.name}: ${what} that requires a gradient cannot be changed in place (got ${updated.describe()}). ` +
        'Do it inside noGrad, or on a clone.',
    );
  }
  if (updated.isUnrecordedView) {
    throw new AutogradError(
      `${op.name}: a view that was made inside noGrad cannot be changed in place outside it (got ${updated.describe()}): ` +
        'autograd does not know what it looks into. Make the view outside noGrad, or change it inside.',
    );
  }
}

function packInputs(
  node: TapeNode,
  op: AnyOp,
  inputs: readonly Tensor[],
  saves: readonly string[],
): void {
  for (const name of saves) {
    if (savedOutputIndex(name) !== undefined) continue;
    const input = inputs[inputPosition(op, name)];
    invariant(input, () => `${op.name} saves '${name}', which is not one of its inputs`);
    node.saved.set(name, new SavedTensor(input, contextOf(node, op, name)));
  }
}

function packOutputs(
  node: TapeNode,
  op: AnyOp,
  outputs: readonly Tensor[],
  saves: readonly string[],
): void {
  for (const name of saves) {
    const index = savedOutputIndex(name);
    if (index === undefined) continue;
    const output = outputs[index];
    invariant(output, () => `${op.name} saves '${name}' but has ${outputs.length} outputs`);
    const own = isFloat(output.dtype) ? index : undefined;
    node.saved.set(name, new SavedTensor(output, contextOf(node, op, name), own));
  }
}

function contextOf(node: TapeNode, op: AnyOp, name: string): SaveContext {
  const context = { op: op.name, name, module: node.module };
  return op.traits.exactSaves?.includes(name) ? { ...context, exact: true } : context;
}

function savesOutputs(saves: readonly string[]): boolean {
  return saves.some((name) => savedOutputIndex(name) !== undefined);
}

/** Position of a named input; `name3` is the third of a variadic `...name`. */
function inputPosition(op: AnyOp, name: string): number {
  const plain = op.args.indexOf(name);
  if (plain >= 0) return plain;
  const last = op.args.length - 1;
  const variadic = op.args[last];
  if (variadic?.startsWith('...') && name.startsWith(variadic.slice(3))) {
    return last + Number(name.slice(variadic.length - 3));
  }
  return -1;
}

/** Tests of eager semantics that do not run again inside `compile`, and why. */

const bytes = 'it counts live bytes, and a compiled step has a plan for those';
const kernels = 'it looks at how one op lies in memory, or which kernels are made for it';
const programs = 'it draws other values each time, so that two runs cannot be compared';
const writes = 'it writes host values into tensors, which a compiled step refuses';
const frees = 'it frees what its step would need in every run';
const recompute =
  'it counts what a recompute runs; in a compiled step that is in the plan (test/conformance/checkpoint)';

const recordsRun = 'kernels at their limits; every op record runs compiled in test/conformance';
const elsewhere = 'recomputes and modes, which test/conformance/checkpoint asks in both executions';

/** Suites none of whose tests run again this way. */
export const eagerOnlyFiles: Readonly<Record<string, string>> = {
  'src/ops/attention/attention.test.ts': recordsRun,
  'src/ops/index/index.test.ts': recordsRun,
  'src/ops/registry.test.ts': 'it runs no tensor program',
  'src/tensor/with-scope.test.ts': bytes,
  'test/selective/apply.test.ts': elsewhere,
  'test/selective/contexts.test.ts': elsewhere,
  'test/selective/torchtitan.test.ts': elsewhere,
};

/** By file, then by name of the test. */
export const eagerOnly: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'src/autograd/backward.test.ts': {
    'errors in backward free everything, outside scopes too': bytes,
  },
  'src/autograd/leaf.test.ts': {
    'a hook that throws leaves no memory behind': bytes,
  },
  'src/nn/layers.test.ts': {
    'attention over a cache, piece by piece, equals attention at once (window undefined)': frees,
    'attention over a cache, piece by piece, equals attention at once (window 3)': frees,
    'rotary tables by range and by position agree; positions end': frees,
  },
  'src/nn/module.test.ts': {
    'a tied parameter is listed once and may be loaded under either name': writes,
    'loadStateDict names what is missing and unexpected, and writes nothing': writes,
  },
  'src/ops/in-place-views.test.ts': {
    'what a changed view holds goes with the last handle': bytes,
  },
  'src/ops/matmul/matmul.test.ts': {
    'equals the definition for any size and layout': programs,
    'addmmInPlace changes its matrix, and only it': kernels,
  },
  'src/ops/pointwise.test.ts': {
    'are run-time values: no kernel is made for a second number': kernels,
  },
  'src/ops/quantize.test.ts': {
    'int8: no error above half a step of the block': programs,
    'fp8: no error above 2^-4 of a value, or half the smallest step of its block': programs,
  },
  'src/ops/slice.test.ts': {
    'is a view: select, flip and unbind move no data': kernels,
    'equals its reference for any part': programs,
  },
  'src/tensor/saved-tensor.test.ts': {
    'a tensor that pack makes lives as long as the graph, not as long as the scope': bytes,
    'hooks that throw leave no memory behind': bytes,
  },
  'test/checkpoint.test.ts': {
    'C1 nothing but the inputs of a region stays alive': bytes,
    'C2 a region is recomputed once per backward, and again for a second one': recompute,
    'C2 recomputed tensors go when they are used, under retainGraph too [test_checkpointing_without_reentrant_memory_savings]':
      bytes,
    'C2 disjoint backwards in a group share one recompute [test_checkpoint_graph_execution_group]':
      recompute,
    'C4 early stop leaves out ops after the last saved tensor': recompute,
    'C4 the stop cannot be swallowed, and finally blocks run': recompute,
    'C5 mismatches name the region, the op and both sides [test_checkpoint_detects_non_determinism]':
      recompute,
    'C9 random draws are replayed, from user generators too': recompute,
    'C12 sequential: equal segments, the last one is not checkpointed': recompute,
    'C13 the process-wide early-stop setting overrides the option and nests': recompute,
  },
};

/** docs/activation-memory.md: what one transformer layer holds for its backward, traced and by the paper's formulas. */

import {
  type Configuration,
  type Model,
  configurations,
  formulaBytes,
  models,
  tracedBytes,
} from '../test/conformance/activation-memory/figures.ts';

const head = `# Where activation bytes go

The transformer layer of [arXiv 2205.05198](https://arxiv.org/abs/2205.05198), traced at the sizes of its four models, and what
the report of \`savedTensors\` says it holds for backward. Generated from \`test/conformance/activation-memory\` by
\`npm run docs:generate\`; the tests there hold every figure equal to the paper's formula, to the byte.

s: tokens of a sequence, b: sequences, h: hidden size, a: heads, t: tensor-parallel processes (8). The layer is the paper's:
bfloat16, attention with materialized scores, and dropout that keeps its masks. Left out, as in the paper: parameters, and the
mean and deviation of the norms (8 bytes per token and norm).
`;

export function activationMemoryPage(): string {
  const traced = new Map<Configuration, number[]>(
    configurations.map((c) => [c, models.map((model) => tracedBytes(model, c))]),
  );
  const sizes = models.map(
    ({ name, sequence, batch, hidden, heads }) =>
      `| ${name} | ${sequence} | ${batch} | ${hidden.toLocaleString('en')} | ${heads} |`,
  );
  const mib = configurations.map((c) => {
    const cells = models.map((model, i) => mebibytes(model, c, traced.get(c)?.[i] ?? 0));
    return `| ${c.name} | ${c.formula} | ${cells.join(' | ')} |`;
  });
  const [, base] = configurations;
  const percent = configurations.slice(1).map((c) => {
    const cells = models.map((_, i) => {
      const share = (traced.get(c)?.[i] ?? 0) / ((base && traced.get(base)?.[i]) || 1);
      return (100 * share).toFixed(1);
    });
    return `| ${c.name} | ${cells.join(' | ')} |`;
  });
  const names = models.map(({ name }) => name).join(' | ');
  return [
    head,
    `| model | s | b | h | a |\n|---|---:|---:|---:|---:|\n${sizes.join('\n')}\n`,
    `## MiB of one layer on one process\n`,
    `| | formula | ${names} |\n|---|---|---:|---:|---:|---:|\n${mib.join('\n')}\n`,
    `## Percent of tensor parallelism alone\n`,
    `| | ${names} |\n|---|---:|---:|---:|---:|\n${percent.join('\n')}\n`,
    tail,
  ].join('\n');
}

const tail = `## What Retune's own layers hold

\`scaledDotProductAttention\` never holds the scores: the 5as/h is gone without recompute. \`dropout\` holds 16 bytes and draws its
mask again. To see where the bytes of your own model go, ask for the report before backward:

\`\`\`ts
import { formatSavedTensors, matmul, savedTensors, sum, tensor } from '../src/index.ts';

const x = tensor([[1, 2], [3, 4]], { requiresGrad: true });
console.log(formatSavedTensors(savedTensors(sum(matmul(x, x)))));
\`\`\`
`;

/** Throws when the trace is not what the formula says: the page states both as one figure. */
function mebibytes(model: Model, configuration: Configuration, bytes: number): string {
  if (bytes !== Math.round(formulaBytes(model, configuration))) {
    throw new Error(`${configuration.name} of ${model.name}: traced ${bytes} bytes`);
  }
  return (bytes / 2 ** 20).toLocaleString('en', { maximumFractionDigits: 1 });
}

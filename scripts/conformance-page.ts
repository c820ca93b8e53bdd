/** docs/conformance.md: PyTorch's tests of activation checkpointing, and what becomes of each here. */

import { catalogue } from '../test/conformance/checkpoint/catalogue.ts';
import type { ConformanceCase, Outcome } from '../test/conformance/checkpoint/case.ts';

/** Where PyTorch keeps the tests, by the last of our numbers. */
const sources: readonly (readonly [last: number, title: string])[] = [
  [22, 'test/test_autograd.py: TestAutograd'],
  [30, 'test/test_autograd.py: TestNestedCheckpoint'],
  [40, 'test/test_autograd.py: TestSelectiveActivationCheckpoint'],
  [58, 'test/test_utils.py: TestCheckpoint'],
  [103, 'test/dynamo/test_activation_checkpointing.py: ActivationCheckpointingViaTagsTests'],
  [109, 'test/dynamo/test_activation_checkpointing.py: RematerializeACNodesPassTests'],
  [118, 'test/functorch/test_ac.py: MemoryBudgetTest'],
  [135, 'test/functorch/test_ac_knapsack.py'],
  [142, 'test/functorch, other files'],
  [158, 'test/distributed'],
];

const head = `# Conformance with PyTorch

PyTorch's own tests of activation checkpointing, and what becomes of each one here. Generated from
\`test/conformance/checkpoint\` by \`npm run docs:generate\`; every *holds* is a test that runs with \`npm test\` and carries
the PyTorch test's name. Units are PyTorch's: one 512x512 float32 tensor is 1 MiB, one product of two of them is one mm.

*Holds*: tested. *Not here*, or -: the case says nothing about this library, with the reason.
`;

export function conformancePage(cases: readonly ConformanceCase[] = catalogue): string {
  const parts = [head, summary(cases)];
  let first = 0;
  for (const [last, title] of sources) {
    const rows = cases.filter(({ number }) => number > first && number <= last);
    first = last;
    if (rows.length === 0) continue;
    const lines = rows.map((entry) => row(cellsOf(entry)));
    const header = row([
      '',
      'PyTorch test',
      'what holds, or why it is not here',
      'eager',
      'compiled',
    ]);
    parts.push(`## ${title}\n\n${header}\n|---:|---|---|---|---|\n${lines.join('\n')}\n`);
  }
  return parts.join('\n');
}

function summary(cases: readonly ConformanceCase[]): string {
  const count = (execution: 'eager' | 'compiled', kind: Outcome['kind']): string =>
    String(cases.filter((entry) => entry[execution].kind === kind).length);
  const line = (execution: 'eager' | 'compiled'): string =>
    row([execution, ...(['holds', 'absent'] as const).map((k) => count(execution, k))]);
  return `| of ${cases.length} cases | hold | not here |\n|---|---:|---:|\n${line('eager')}\n${line('compiled')}\n`;
}

function cellsOf({ number, torch, claim, eager, compiled }: ConformanceCase): string[] {
  const name = `\`${torch}\``;
  if (claim === '' && eager.kind === 'absent') return [String(number), name, eager.why, '-', '-'];
  return [String(number), name, claim, cell(eager), cell(compiled)];
}

function cell(outcome: Outcome): string {
  return outcome.kind === 'holds' ? 'holds' : `not here: ${outcome.why}`;
}

function row(cells: readonly string[]): string {
  return `| ${cells.map((text) => text.replaceAll('|', '\\|')).join(' | ')} |`;
}

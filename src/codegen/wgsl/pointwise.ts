/**
 * Kernels without reductions: invocation i computes point i. If an output is packed, an invocation
 * computes the two or four points of a word instead; where the tensor begins or ends inside a word,
 * the rest of that word is read and kept.
 */

import { contiguousStrides, numElements } from '../../core/shape.ts';
import type { KernelSpec } from '../../ir/kernel.ts';
import { type PointWriter, writeCoordinates } from './points.ts';
import { elementsPerWord, type KernelStorage } from './storage.ts';
import { indexText, u32Text, type WgslText } from './text.ts';
import { placedBits, placedMask, type WordPlan } from './words.ts';
import { writeEntryPoint } from './workgroups.ts';

export const pointwiseInvocations = 256;

/** Workgroups of a pointwise kernel. */
export function pointwiseGroups(spec: KernelSpec, plan: WordPlan): number {
  const points = numElements(spec.space);
  return points === 0 ? 0 : Math.ceil((points + plan.lead) / plan.points / pointwiseInvocations);
}

export function writePointwise(
  text: WgslText,
  spec: KernelSpec,
  plan: WordPlan,
  writer: PointWriter,
  storage: KernelStorage,
): void {
  const points = numElements(spec.space);
  writeEntryPoint(text, pointwiseInvocations, () => {
    text.line(`let invocation = group * ${u32Text(pointwiseInvocations)} + local;`);
    if (plan.points === 1) {
      text.line('let i = invocation;');
      text.line(`if (i >= ${u32Text(points)}) { return; }`);
      writePoint(text, spec, writer);
      for (const output of spec.outputs.keys()) writer.store(text, output);
      return;
    }
    const groups = Math.ceil((points + plan.lead) / plan.points);
    text.line(`if (invocation >= ${u32Text(groups)}) { return; }`);
    for (const name of wordNames(spec, plan)) {
      text.line(`var word${name} = 0u;`);
      text.line(`var mask${name} = 0u;`);
    }
    for (let j = 0; j < plan.points; j++) {
      text.block('', () => {
        // Points before the first one wrap to large numbers.
        const shift = j - plan.lead;
        text.line(
          `let i = invocation * ${u32Text(plan.points)} ${shift < 0 ? '-' : '+'} ${u32Text(Math.abs(shift))};`,
        );
        text.block(`if (i < ${u32Text(points)})`, () => {
          writePoint(text, spec, writer);
          for (const output of spec.outputs.keys()) {
            if (!plan.whole.has(output)) {
              writer.store(text, output);
              continue;
            }
            const perWord = elementsPerWord(spec.outputs[output]!.dtype);
            const name = `${output}w${Math.floor(j / perWord)}`;
            text.line(`word${name} |= ${placedBits(writer.bits(output), perWord, j)};`);
            text.line(`mask${name} |= ${placedMask(perWord, j)};`);
          }
        });
      });
    }
    for (const output of plan.whole) writeWords(text, spec, plan, output, storage);
  });
}

function writePoint(text: WgslText, spec: KernelSpec, writer: PointWriter): void {
  const lines = [...writer.program.lines.keys()];
  const axes = [...contiguousStrides(spec.space).keys()];
  const wanted = writer.wantedAxes(lines, [...spec.outputs.keys()]);
  writeCoordinates(text, spec, axes, 'i', wanted);
  writer.write(text, lines);
}

function writeWords(
  text: WgslText,
  spec: KernelSpec,
  plan: WordPlan,
  output: number,
  storage: KernelStorage,
): void {
  const { operand, dtype, offset } = spec.outputs[output]!;
  const perWord = elementsPerWord(dtype);
  for (let q = 0; q < plan.points / perWord; q++) {
    const name = `${output}w${q}`;
    const first = (offset - plan.lead) / perWord + q;
    const terms = [{ name: 'invocation', step: plan.points / perWord }];
    // A group that begins before the operand has no points in its negative words.
    const index = indexText(undefined, 0, terms) + (first === 0 ? '' : signed(first));
    text.block(`if (mask${name} == 0xffffffffu)`, () => {
      storage.storeWord(text, operand, index, `word${name}`);
    });
    text.block(`else if (mask${name} != 0u)`, () => {
      const kept = `${storage.loadWord(operand, index)} & ~mask${name}`;
      storage.storeWord(text, operand, index, `(${kept}) | word${name}`);
    });
  }
}

function signed(value: number): string {
  return value < 0 ? ` - ${u32Text(-value)}` : ` + ${u32Text(value)}`;
}

function wordNames(spec: KernelSpec, plan: WordPlan): string[] {
  return [...plan.whole].flatMap((output) => {
    const perWord = elementsPerWord(spec.outputs[output]!.dtype);
    return Array.from({ length: plan.points / perWord }, (_, q) => `${output}w${q}`);
  });
}

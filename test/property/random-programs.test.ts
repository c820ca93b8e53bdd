import { test } from 'node:test';
import { checkLiveBytes } from '../support/backend.ts';
import { checkProgram, checkPrograms } from './check-programs.ts';
import type { Block, OpName } from './random-programs.ts';

checkLiveBytes();

test('random programs: equal bits eager and compiled, with and without regions; planned memory holds', () => {
  checkPrograms(300);
});

test('a discarded output that was changed in place, read through views by an op whose result is kept', () => {
  const op = (name: OpName, weight: number): Block => ({ kind: 'op', op: name, weight });
  const group = (region: boolean, ...blocks: Block[]): Block => ({ kind: 'group', region, blocks });
  const inner = group(true, op('matmul', 1), op('softmax', 0));
  const middle = group(true, inner, op('inPlace', 1));
  const outer = group(true, middle, group(false, op('views', 1)), op('sin', 1), op('residual', 1));
  const blocks = [op('inPlace', 0), op('dropout', 0), op('matmul', 1), outer];
  checkProgram({ rows: 2, columns: 6, seed: 224, policySeed: 65, blocks }, 21);
});

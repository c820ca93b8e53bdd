import { test } from 'node:test';
import { checkLiveBytes } from '../support/backend.ts';
import { checkPrograms } from './check-programs.ts';

checkLiveBytes();

test('random programs: equal bits eager and compiled, with and without regions; planned memory holds', () => {
  checkPrograms(300);
});

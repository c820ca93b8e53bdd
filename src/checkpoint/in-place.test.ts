/** In-place changes of what a region saved are found in backward, in both executions. */

import assert from 'node:assert/strict';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import { grad } from '../autograd/backward.ts';
import { AutogradError } from '../core/errors.ts';
import '../ops/methods.ts';
import { mul } from '../ops/arithmetic.ts';
import { sum } from '../ops/broadcast.ts';
import { addInPlace } from '../ops/in-place.ts';
import { exp, sin } from '../ops/unary.ts';
import { noGrad } from '../tensor/context.ts';
import { tensor, toArray } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { checkpoint } from './checkpoint.ts';

const test = alsoCompiled(import.meta.url);

checkLiveBytes();

test('a saved tensor that its region changes afterwards is an error', () => {
  scope(() => {
    const region = (x: Tensor): Tensor => {
      const y = exp(x);
      noGrad(() => addInPlace(y, 1));
      return sin(mul(y, y));
    };
    const x = tensor([1, 2], { requiresGrad: true });
    assert.throws(
      () => grad(sum(checkpoint(region, [x])), [x]),
      (error) => error instanceof AutogradError && /exp was changed in place/.test(error.message),
    );
  });
});

test('a change before the save, or of what nobody saved, is none', () => {
  scope(() => {
    const region = (x: Tensor): Tensor => {
      const y = addInPlace(mul(x, 2), x);
      return mul(y, y);
    };
    const x = tensor([1, 2], { requiresGrad: true });
    const [gradient] = grad(sum(checkpoint(region, [x])), [x]);
    assert.deepEqual([...toArray(gradient as Tensor)], [18, 36]);
  });
});

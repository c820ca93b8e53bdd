import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { AutogradError, DTypeError, ShapeError } from '../core/errors.ts';
import { backward } from '../autograd/backward.ts';
import { noGrad } from '../tensor/context.ts';
import { tensor, toArray } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { mul } from './arithmetic.ts';
import { sum } from './broadcast.ts';
import { ones, zeros } from './creation.ts';
import {
  addInPlace,
  copyInPlace,
  divInPlace,
  fillInPlace,
  mulInPlace,
  subInPlace,
  zeroInPlace,
} from './in-place.ts';
import { narrow } from './slice.ts';
import { exp } from './unary.ts';
import { clone, transpose } from './views.ts';

const it = alsoCompiled(import.meta.url);

checkLiveBytes();

const list = (x: Tensor): number[] => [...toArray(x)];
const leaf = (values: number[]): Tensor => tensor(values, { requiresGrad: true });

describe('in-place ops', () => {
  it('change the tensor and return it', () => {
    scope(() => {
      const x = tensor([1, 2, 3]);
      assert.equal(addInPlace(x, tensor([1, 1, 1]), 2), x);
      assert.deepEqual(list(x), [3, 4, 5]);
      assert.deepEqual(list(subInPlace(x, 1)), [2, 3, 4]);
      assert.deepEqual(list(mulInPlace(x, tensor([2]))), [4, 6, 8]);
      assert.deepEqual(list(divInPlace(x, 2)), [2, 3, 4]);
      assert.deepEqual(list(mulInPlace(x, -1)), [-2, -3, -4]);
      assert.deepEqual(list(copyInPlace(x, tensor(7))), [7, 7, 7]);
      assert.deepEqual(list(fillInPlace(x, 5)), [5, 5, 5]);
      assert.deepEqual(list(zeroInPlace(x)), [0, 0, 0]);
    });
  });

  it('write through views', () => {
    scope(() => {
      const x = zeros([2, 3]);
      addInPlace(narrow(transpose(x), 0, 1, 2), tensor([[1, 2]]));
      assert.deepEqual(list(x), [0, 1, 1, 0, 2, 2]);
    });
  });

  it('convert the operand to the dtype of the tensor', () => {
    scope(() => {
      const x = zeros([3], { dtype: 'bfloat16' });
      addInPlace(x, tensor([1.001, 2, 3]));
      assert.deepEqual(list(x), [1, 2, 3]);
      const n = zeros([2], { dtype: 'int32' });
      assert.deepEqual(list(copyInPlace(n, tensor([1.9, -1.9]))), [1, -1]);
      assert.throws(() => addInPlace(n, tensor([0.5, 1])), DTypeError);
      assert.throws(() => mulInPlace(n, 0.5), /got 0.5 into int32\[2\]/);
    });
  });

  it('refuse operands that do not broadcast to the tensor', () => {
    scope(() => {
      assert.throws(() => addInPlace(zeros([3]), zeros([2, 3])), ShapeError);
      assert.throws(() => addInPlace(zeros([3]), zeros([4])), /do not broadcast/);
    });
  });

  it('carry gradients of both operands', () => {
    scope(() => {
      const [a, b] = [leaf([1, 2]), leaf([3, 4])];
      const x = mul(a, 2);
      addInPlace(x, b, 3);
      mulInPlace(x, tensor([5, 7]));
      backward(sum(x));
      assert.deepEqual(list(a.grad!), [10, 14]);
      assert.deepEqual(list(b.grad!), [15, 21]);
    });
  });

  it('cut the gradient of what they overwrite', () => {
    scope(() => {
      const [a, b] = [leaf([1, 2]), leaf([3])];
      const x = mul(a, 2);
      copyInPlace(x, b);
      backward(sum(x));
      assert.equal(a.grad, undefined);
      assert.deepEqual(list(b.grad!), [2]);
    });
  });

  it('refuse leaves that want a gradient, but not inside noGrad', () => {
    scope(() => {
      const a = leaf([1, 2]);
      assert.throws(() => addInPlace(a, 1), AutogradError);
      noGrad(() => addInPlace(a, 1));
      assert.deepEqual(list(a), [2, 3]);
    });
  });

  it('make backward fail where it needs the value that is gone', () => {
    scope(() => {
      const a = leaf([1, 2]);
      const x = exp(a);
      const y = mul(x, x);
      addInPlace(x, ones([2]));
      assert.throws(() => backward(sum(y)), /changed in place after it was saved/);
      const b = leaf([3, 4]);
      const z = clone(a);
      mulInPlace(z, b);
      assert.throws(() => backward(sum(z)), /'x' of mulInPlace was changed in place/);
    });
  });
});

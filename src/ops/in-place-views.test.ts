/** In-place changes through views while gradients are recorded: the base and all its views follow. */

import assert from 'node:assert/strict';
import { alsoCompiled } from '../../test/support/also-compiled.ts';
import { checkLiveBytes } from '../../test/support/backend.ts';
import { backward, grad } from '../autograd/backward.ts';
import { checkpoint } from '../checkpoint/checkpoint.ts';
import { AutogradError, ShapeError } from '../core/errors.ts';
import './methods.ts';
import { liveBytes } from '../tensor/backend.ts';
import { noGrad } from '../tensor/context.ts';
import { tensor, toArray } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import { add, mul } from './arithmetic.ts';
import { expand, reshape, sum } from './broadcast.ts';
import { zeros } from './creation.ts';
import { addInPlace, copyInPlace, mulInPlace } from './in-place.ts';
import { narrow } from './slice.ts';
import { exp, sin } from './unary.ts';
import { transpose } from './views.ts';

const test = alsoCompiled(import.meta.url);

checkLiveBytes();

const list = (x: Tensor | undefined): number[] => (x ? [...toArray(x)] : []);

function gradientOf(f: (x: Tensor) => Tensor): number[] {
  return scope(() => {
    const x = tensor([1, 2, 3, 4], { requiresGrad: true });
    return list(grad(sum(f(x)), [x])[0]);
  });
}

/** f written with in-place changes of views, and what it means without them. */
const programs: readonly {
  readonly name: string;
  readonly inPlace: (x: Tensor) => Tensor;
  readonly gradient: readonly number[];
}[] = [
  {
    name: 'the base of a changed view',
    inPlace: (x) => {
      const base = mul(x, 2);
      mulInPlace(narrow(base, 0, 0, 2), 10);
      return mul(base, base);
    },
    gradient: [800, 1600, 24, 32],
  },
  {
    name: 'the changed view itself',
    inPlace: (x) => {
      const base = mul(x, 2);
      const view = narrow(base, 0, 0, 2);
      mulInPlace(view, 10);
      return mul(view, view);
    },
    gradient: [800, 1600, 0, 0],
  },
  {
    name: 'a view of a changed base',
    inPlace: (x) => {
      const base = mul(x, 2);
      const view = narrow(base, 0, 0, 2);
      mulInPlace(base, 10);
      return mul(view, view);
    },
    gradient: [800, 1600, 0, 0],
  },
  {
    name: 'another view than the changed one',
    inPlace: (x) => {
      const base = mul(x, 2);
      const [left, right] = [narrow(base, 0, 0, 3), narrow(base, 0, 2, 2)];
      mulInPlace(left, 10);
      mulInPlace(right, 3);
      return left;
    },
    gradient: [20, 20, 60, 0],
  },
  {
    name: 'views of views, turned and reshaped',
    inPlace: (x) => {
      const base = mul(reshape(x, [2, 2]), 1);
      mulInPlace(reshape(narrow(transpose(base), 0, 1, 1), [2]), tensor([5, 7]));
      return base;
    },
    gradient: [1, 5, 1, 7],
  },
  {
    name: 'an overwritten part gets no gradient, what is written does',
    inPlace: (x) => {
      const base = mul(x, 2);
      copyInPlace(narrow(base, 0, 0, 2), mul(narrow(x, 0, 2, 2), 100));
      return base;
    },
    gradient: [0, 0, 102, 102],
  },
  {
    name: 'a buffer that is filled part by part',
    inPlace: (x) => {
      const buffer = zeros([6]);
      const last = narrow(buffer, 0, 4, 2);
      copyInPlace(narrow(buffer, 0, 0, 4), mul(x, x));
      addInPlace(last, narrow(x, 0, 0, 2));
      return mul(buffer, tensor([1, 1, 1, 1, 50, 50]));
    },
    gradient: [52, 54, 6, 8],
  },
];

for (const { name, inPlace, gradient } of programs) {
  test(`${name} has the right gradient, in a checkpointed region too`, () => {
    assert.deepEqual(gradientOf(inPlace), gradient);
    assert.deepEqual(
      gradientOf((x) => checkpoint(inPlace, [x])),
      gradient,
    );
    assert.deepEqual(
      gradientOf((x) => checkpoint((y: Tensor) => checkpoint(inPlace, [mul(y, 1)]), [x])),
      gradient,
    );
  });
}

test('the second derivative goes through a changed view', () => {
  scope(() => {
    const x = tensor([1, 2], { requiresGrad: true });
    const base = mul(mul(x, x), x);
    mulInPlace(narrow(base, 0, 0, 1), 10);
    const [first] = grad(sum(base), [x], { createGraph: true });
    assert.deepEqual(list(first), [30, 12]);
    const [second] = grad(sum(first as Tensor), [x]);
    assert.deepEqual(list(second), [60, 12]);
  });
});

test('a saved value that a view changes is an error', () => {
  scope(() => {
    const x = tensor([1, 2], { requiresGrad: true });
    const y = exp(x);
    const z = sin(y);
    mulInPlace(narrow(y, 0, 0, 1), 2);
    assert.throws(() => backward(sum(z)), /changed in place after it was saved/);
  });
});

test('views of leaves and views made inside noGrad are refused', () => {
  scope(() => {
    const x = tensor([1, 2], { requiresGrad: true });
    const refused = (text: RegExp) => (error: unknown) =>
      error instanceof AutogradError && text.test(error.message);
    assert.throws(
      () => mulInPlace(narrow(x, 0, 0, 1), 2),
      refused(/a view of a leaf that requires/),
    );
    noGrad(() => mulInPlace(narrow(x, 0, 0, 1), 2));
    assert.deepEqual(list(x), [2, 2]);
    const buffer = zeros([2]);
    const view = noGrad(() => narrow(buffer, 0, 0, 1));
    assert.throws(() => addInPlace(view, sum(x)), refused(/made inside noGrad/));
    noGrad(() => addInPlace(view, sum(x)));
    assert.deepEqual(list(buffer), [4, 0]);
  });
});

test('a tensor whose elements lie in one place cannot be changed', () => {
  scope(() => {
    assert.throws(() => addInPlace(expand(zeros([1, 3]), [2, 3]), 1), ShapeError);
  });
});

test('what a changed view holds goes with the last handle', () => {
  scope(() => {
    const x = tensor(new Float32Array(1024), { requiresGrad: true });
    const before = liveBytes();
    const view = scope(() => {
      const base = exp(x);
      const part = narrow(base, 0, 0, 16);
      addInPlace(part, narrow(sin(mul(base, 1)), 0, 0, 16));
      return part;
    });
    const other = scope(() => add(view, 1));
    assert.ok(liveBytes() > before);
    view.dispose();
    other.dispose();
    assert.equal(liveBytes(), before);
  });
});

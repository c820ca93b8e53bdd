/**
 * What makes a tensor part of a module: its role. A module finds its parameters and buffers among its
 * fields by role, so a tensor kept in a field for another reason is not one of them. Such tensors are
 * kept out of scopes; the module that holds them disposes them.
 */

import { isFloat } from '../core/dtype.ts';
import { ArgumentError } from '../core/errors.ts';
import { isContiguous } from '../core/shape.ts';
import { clone } from '../ops/views.ts';
import { noGrad } from '../tensor/context.ts';
import { BufferData } from '../tensor/data.ts';
import type { Tensor } from '../tensor/tensor.ts';

export type Role =
  | 'parameter'
  /** State that is saved with the weights, such as running statistics. */
  | 'buffer'
  /** A table that follows from the configuration and is not saved. */
  | 'table';

const roles = new WeakMap<Tensor, Role>();

/**
 * Makes `values` a parameter (torch.nn.Parameter): kept, counted as parameter memory, and, if its dtype
 * is a float, wanting a gradient unless told otherwise. Takes over the handle. Throws ArgumentError for
 * a tensor with a graph.
 */
export function parameter(
  values: Tensor,
  options: { readonly requiresGrad?: boolean } = {},
): Tensor {
  const own = adopt('parameter', values);
  own.requiresGrad = options.requiresGrad ?? isFloat(own.dtype);
  return own;
}

/** Makes `values` a buffer (torch.nn.Module.register_buffer); `persistent: false` keeps it out of files. */
export function buffer(values: Tensor, options: { readonly persistent?: boolean } = {}): Tensor {
  return adopt((options.persistent ?? true) ? 'buffer' : 'table', values);
}

/** The role of a tensor; undefined for one that is no part of a module. */
export function roleOf(tensor: Tensor): Role | undefined {
  return roles.get(tensor);
}

function adopt(role: Role, values: Tensor): Tensor {
  if (!values.isLeaf) {
    throw new ArgumentError(
      `${role}: only a tensor without a graph can become one (got ${values.describe()}, computed with gradients). ` +
        'Compute it inside noGrad, or pass detach().',
    );
  }
  const own = ownsItsMemory(values) ? values : replaceByClone(values);
  if (own.data instanceof BufferData) own.data.storage.setCategory('parameter');
  roles.set(own, role);
  return own.keep();
}

/** Parameters are updated in place and captured whole by compiled steps, so no other tensor may share them. */
function ownsItsMemory(values: Tensor): boolean {
  const { data } = values;
  if (!(data instanceof BufferData)) return true;
  const { layout, storage } = data;
  return layout.offset === 0 && isContiguous(values.shape, layout.strides) && storage.owners === 1;
}

function replaceByClone(values: Tensor): Tensor {
  const copy = noGrad(() => clone(values));
  values.dispose();
  return copy;
}

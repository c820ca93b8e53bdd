/**
 * Values that are cheaper to make again than to keep: whoever saves one keeps what it was made from, through
 * the hooks in force, and backward makes it again. Views of it are looked into the new memory as before.
 */

import type { Layout } from '../core/shape.ts';
import { isGradEnabled, noGrad } from './context.ts';
import { BufferData } from './data.ts';
import { type SaveStandIn, SavedTensor, currentHooks } from './saved-tensor.ts';
import { Tensor } from './tensor.ts';
import { scope } from './with-scope.ts';

interface SavedSource {
  readonly source: SavedTensor;
  readonly shape: Tensor['shape'];
  /** Of a view in memory; undefined in a trace, where only the value itself has a stand-in. */
  readonly layout: Layout | undefined;
}

/**
 * Makes ops that save `made` keep `source` instead. `remake` gives the same bits, dense, from `source`'s values.
 * Nothing changes where no graph is recorded.
 */
export function keepSource(made: Tensor, source: Tensor, remake: (source: Tensor) => Tensor): void {
  if (!isGradEnabled()) return;
  const own = source.detach().keep();
  own.standIn = source.standIn?.retain();
  let owners = 1;
  const standIn: SaveStandIn<SavedSource> = {
    under: currentHooks(),
    version: made.version,
    coversViews: made.data instanceof BufferData,
    hooks: {
      pack: ({ data, shape }, context) => ({
        source: new SavedTensor(own, context),
        shape,
        layout: data instanceof BufferData ? data.layout : undefined,
      }),
      unpack: (saved) => remade(saved, remake),
      release: ({ source: saved }) => saved.release(),
      held: ({ source: saved }) => [saved],
    },
    retain: () => {
      owners++;
      return standIn;
    },
    release: () => {
      owners--;
      if (owners === 0) own.dispose();
    },
  };
  made.standIn = standIn;
}

function remade(
  { source, shape, layout }: SavedSource,
  remake: (source: Tensor) => Tensor,
): Tensor {
  const whole = scope(() => noGrad(() => remake(source.unpack(undefined))));
  if (!layout || !(whole.data instanceof BufferData)) return whole;
  const view = new BufferData(whole.data.storage.retain(), layout);
  const tensor = new Tensor(view, shape, whole.dtype);
  whole.dispose();
  return tensor;
}

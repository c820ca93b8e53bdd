/** The sliding windows of Qwen models: off by default; otherwise the layers from `max_window_layers` on. */

import { readWindows } from '../decoder/common-fields.ts';
import type { ConfigFields } from '../decoder/config-fields.ts';

export function readQwenWindows(fields: ConfigFields, numLayers: number): (number | undefined)[] {
  if (!fields.boolean('use_sliding_window', false)) {
    return readWindows(fields, numLayers, undefined);
  }
  const window = fields.positiveInteger('sliding_window', 4096);
  if (fields.has('layer_types')) return readWindows(fields, numLayers, window);
  const [first = 28] = fields.integers('max_window_layers');
  return Array.from({ length: numLayers }, (_, layer) => (layer < first ? undefined : window));
}

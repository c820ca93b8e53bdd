/** Mistral 7B (arXiv 2310.06825): Llama with a sliding window in every layer. */

import { readCommon, readWindows } from '../decoder/common-fields.ts';
import type { ModelFamily } from '../decoder/family.ts';

const architecture = 'MistralForCausalLM';

export const mistral: ModelFamily = {
  architecture,
  modelType: 'mistral',
  read: (fields) => {
    const common = readCommon(architecture, fields, { numKvHeads: 8, maxPositions: 131_072 });
    // A missing field means the first model's window; null means none.
    const window =
      fields.raw.sliding_window === null
        ? undefined
        : fields.positiveInteger('sliding_window', 4096);
    return {
      ...common,
      qkvBias: false,
      outputBias: false,
      mlpBias: false,
      qkNorm: false,
      windows: readWindows(fields, common.numLayers, window),
    };
  },
};

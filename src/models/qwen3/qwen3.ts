/** Qwen 3 (arXiv 2505.09388): Llama with RMS norms over each query and key head. */

import { readCommon } from '../decoder/common-fields.ts';
import type { ModelFamily } from '../decoder/family.ts';
import { readQwenWindows } from '../qwen2/windows.ts';

const architecture = 'Qwen3ForCausalLM';

export const qwen3: ModelFamily = {
  architecture,
  modelType: 'qwen3',
  read: (fields) => {
    const common = readCommon(architecture, fields, { headDim: 128, maxPositions: 32_768 });
    const bias = fields.boolean('attention_bias', false);
    return {
      ...common,
      qkvBias: bias,
      outputBias: bias,
      mlpBias: false,
      qkNorm: true,
      windows: readQwenWindows(fields, common.numLayers),
    };
  },
};

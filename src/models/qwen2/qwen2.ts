/** Qwen 2 and 2.5 (arXiv 2407.10671, 2412.15115): Llama with biases on queries, keys and values. */

import { readCommon } from '../decoder/common-fields.ts';
import type { ModelFamily } from '../decoder/family.ts';
import { readQwenWindows } from './windows.ts';

const architecture = 'Qwen2ForCausalLM';

export const qwen2: ModelFamily = {
  architecture,
  modelType: 'qwen2',
  read: (fields) => {
    const common = readCommon(architecture, fields, { maxPositions: 32_768 });
    return {
      ...common,
      qkvBias: true,
      outputBias: false,
      mlpBias: false,
      qkNorm: false,
      windows: readQwenWindows(fields, common.numLayers),
    };
  },
};

/**
 * Llama (arXiv 2302.13971, 2307.09288, 2407.21783): RMS norms, rotary positions, SwiGLU, grouped heads.
 * Also the architecture of SmolLM2 and many others.
 */

import { readCommon } from '../decoder/common-fields.ts';
import type { ModelFamily } from '../decoder/family.ts';

const architecture = 'LlamaForCausalLM';

export const llama: ModelFamily = {
  architecture,
  modelType: 'llama',
  read: (fields) => {
    const common = readCommon(architecture, fields);
    const bias = fields.boolean('attention_bias', false);
    return {
      ...common,
      qkvBias: bias,
      outputBias: bias,
      mlpBias: fields.boolean('mlp_bias', false),
      qkNorm: false,
      windows: new Array<undefined>(common.numLayers).fill(undefined),
    };
  },
};

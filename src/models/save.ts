/** Saving a model as a folder in Hugging Face format, which transformers loads too. */

import { copyFile, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type DType, isFloat } from '../core/dtype.ts';
import type { HostTensor } from '../core/host-tensor.ts';
import { writeFileAtomic, writeFolderAtomic } from '../data/files/atomic.ts';
import {
  type SafetensorsEntry,
  type SavedFiles,
  saveSafetensors,
} from '../data/safetensors/writer.ts';
import { cast } from '../ops/broadcast.ts';
import { noGrad } from '../tensor/context.ts';
import { toHostAsync } from '../tensor/factory.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { CausalLm } from './decoder/causal-lm.ts';
import type { RawConfig } from './decoder/config-fields.ts';

export interface SaveModelOptions {
  /** dtype of the files; default that of the parameters. */
  readonly dtype?: DType;
  /** Bytes of weights that one file may hold; default 5 GB, as transformers. */
  readonly maxShardBytes?: number;
  /** Folder whose tokenizer and generation settings are copied, such as the one the model was loaded from. */
  readonly copyFrom?: string;
}

/** Files that belong to a model without being part of it. */
const companions = [
  'tokenizer.json',
  'tokenizer_config.json',
  'tokenizer.model',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'chat_template.jinja',
  'generation_config.json',
];

/**
 * Writes config.json and the weights to `folder`, which is replaced as a whole: when anything fails,
 * what was there before is unchanged. Throws FileError. Inside a checkpointed or compiled run the files are
 * the same as without.
 */
export async function saveModel(
  model: CausalLm,
  folder: string,
  options: SaveModelOptions = {},
): Promise<SavedFiles> {
  const dtype = options.dtype ?? model.dtype;
  let saved: SavedFiles | undefined;
  await writeFolderAtomic(
    folder,
    async (building) => {
      const config = `${JSON.stringify(savedConfig(model.source, dtype), null, 2)}\n`;
      await writeFileAtomic(join(building, 'config.json'), config);
      saved = await saveSafetensors(join(building, 'model.safetensors'), entriesOf(model, dtype), {
        maxShardBytes: options.maxShardBytes ?? 5e9,
      });
      if (options.copyFrom !== undefined) await copyCompanions(options.copyFrom, building);
    },
    { who: 'saveModel' },
  );
  const files = (saved?.files ?? []).map((file) => join(folder, basename(file)));
  return { files, totalBytes: saved?.totalBytes ?? 0 };
}

/** The configuration it was built from, with the dtype of the files. */
function savedConfig(source: RawConfig, dtype: DType): RawConfig {
  const key = 'dtype' in source ? 'dtype' : 'torch_dtype';
  return { ...source, [key]: dtype };
}

function* entriesOf(model: CausalLm, dtype: DType): Generator<SafetensorsEntry> {
  for (const [name, tensor] of model.stateDict()) {
    const stored = isFloat(tensor.dtype) ? dtype : tensor.dtype;
    yield {
      name,
      dtype: stored,
      shape: tensor.shape,
      load: () => hostCopy(tensor, stored),
    };
  }
}

async function hostCopy(tensor: Tensor, dtype: DType): Promise<HostTensor> {
  if (tensor.dtype === dtype) return toHostAsync(tensor);
  const converted = noGrad(() => cast(tensor, dtype)).keep();
  return toHostAsync(converted).finally(() => converted.dispose());
}

async function copyCompanions(from: string, to: string): Promise<void> {
  const present = new Set(await readdir(from));
  for (const name of companions) {
    if (present.has(name)) await copyFile(join(from, name), join(to, name));
  }
}

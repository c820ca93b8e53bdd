/** Loading a model from a folder in Hugging Face format: config.json and safetensors files. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type DType, isFloat } from '../core/dtype.ts';
import { FileError, RetuneError, invariant } from '../core/errors.ts';
import { recoverFolder } from '../data/files/atomic.ts';
import { type SafetensorsFile, openSafetensors } from '../data/safetensors/reader.ts';
import { planLoad, writeValues } from '../nn/state-dict.ts';
import type { CausalLm } from './decoder/causal-lm.ts';
import type { RawConfig } from './decoder/config-fields.ts';
import { modelFromConfig } from './from-config.ts';

export interface LoadOptions {
  /** dtype of the parameters; default that of the files. */
  readonly dtype?: DType;
}

/** Tables that old files carry and that follow from the configuration. */
const derived = /(^|\.)rotary_emb\.inv_freq$/;

/**
 * Loads the model in `folder`, tensor by tensor. Throws FileError for missing or damaged files,
 * ConfigError for an unsupported configuration and for weights that lack or add a name, ShapeError for
 * weights of another shape.
 */
export async function loadModel(folder: string, options: LoadOptions = {}): Promise<CausalLm> {
  await recoverFolder(folder, { who: 'loadModel' });
  const config = await readModelConfig(folder);
  await using file = await openSafetensors(folder);
  const names = file.names.filter((name) => !derived.test(name));
  const dtype = options.dtype ?? dtypeOfFile(folder, file, names);
  const model = modelFromConfig(config, { dtype, randomWeights: false });
  try {
    const { targets } = planLoad(
      model.namedTensors(),
      names.map((name) => ({ name, shape: file.info(name).shape })),
      true,
    );
    for (const [name, tensor] of targets) writeValues(tensor, await file.read(name));
    return model;
  } catch (cause) {
    model.dispose();
    if (cause instanceof RetuneError && cause.code !== 'file') {
      cause.message = `loadModel: ${folder}: ${cause.message}`;
    }
    throw cause;
  }
}

/** The parsed config.json of a model folder. Throws FileError. */
export async function readModelConfig(folder: string): Promise<RawConfig> {
  const path = join(folder, 'config.json');
  let parsed: unknown;
  try {
    parsed = JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    throw new FileError(
      `loadModel: ${path} cannot be read (got ${cause instanceof Error ? cause.message : String(cause)}). ` +
        'Point to a folder with config.json and safetensors files.',
      { path },
      cause,
    );
  }
  if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) {
    return parsed as RawConfig;
  }
  throw new FileError(
    `loadModel: ${path} does not hold an object (got ${JSON.stringify(parsed).slice(0, 40)}). Download it again.`,
    { path },
  );
}

/** The dtype of the largest tensor: norms are sometimes stored wider than the rest. */
function dtypeOfFile(folder: string, file: SafetensorsFile, names: readonly string[]): DType {
  let largest = -1;
  let dtype: DType = 'float32';
  for (const name of names) {
    const info = file.info(name);
    if (info.bytes <= largest || info.dtype === undefined) continue;
    largest = info.bytes;
    dtype = info.dtype;
  }
  invariant(largest < 0 || isFloat(dtype), () => `${folder} holds ${dtype} weights`);
  return dtype;
}

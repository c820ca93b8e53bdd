/** Keeping saved tensors in fewer bits until backward. Rule O3 in docs/internals/offload.md. */

import { byteForms, readBytes } from '../core/bytes.ts';
import { ArgumentError, nearest } from '../core/errors.ts';
import { isGradEnabled } from '../tensor/context.ts';
import { currentHooks, withSavedTensorHooks } from '../tensor/saved-tensor.ts';
import {
  type CompressionFormat,
  type CompressionSettings,
  type CompressionStats,
  CompressionCounts,
  CompressStore,
} from './compress-store.ts';
import { saveFormats } from './selective/policy.ts';
import { storeHooks } from './value-store.ts';

export interface CompressionOptions {
  readonly format: CompressionFormat;
  /** Smaller tensors stay as they are: bytes, or a text such as '64KiB', the default. */
  readonly minBytes?: number | string;
  /** Whether to compare what was stored with what was saved, for `stats.error`. Eager only. Default false. */
  readonly measure?: boolean;
}

/** Compression with statistics; the same object may be used for every step. */
export class ActivationCompression {
  readonly settings: CompressionSettings;
  readonly #counts = new CompressionCounts();

  /** Throws ArgumentError for unknown options and illegal values. */
  constructor(options: CompressionOptions | CompressionFormat) {
    this.settings = resolveCompression(typeof options === 'string' ? { format: options } : options);
  }

  /**
   * Runs `fn`; floats that its backward needs are stored in the format, and widened when backward reads
   * them, which changes gradients by the rounding. Parameters, small tensors, integers and values that an
   * op declares exact stay as they are. Inside offloadActivations the small form is moved.
   */
  run<R>(fn: () => R): R {
    if (!isGradEnabled()) return fn();
    const store = new CompressStore(this.settings, currentHooks(), this.#counts);
    const hooks = {
      ...storeHooks(store),
      wantsRegionInputs: `compress its inputs (got compressActivations ${this.settings.format} around it)`,
    };
    return withSavedTensorHooks(hooks, fn);
  }

  get stats(): CompressionStats {
    const { values, stayed, bytesBefore, bytesAfter, errors } = this.#counts;
    const error = this.settings.measure ? errors.result : undefined;
    return { values, stayed, bytesBefore, bytesAfter, error };
  }
}

/** Runs `fn` as ActivationCompression.run does, with a compression of its own. */
export function compressActivations<R>(
  options: CompressionOptions | CompressionFormat,
  fn: () => R,
): R {
  return new ActivationCompression(options).run(fn);
}

const legalKeys = ['format', 'minBytes', 'measure'];

function resolveCompression(options: CompressionOptions): CompressionSettings {
  for (const key of Object.keys(options)) {
    if (legalKeys.includes(key)) continue;
    throw new ArgumentError(
      `compressActivations: unknown option '${key}'. Did you mean ${nearest(key, legalKeys, 2).join(' or ')}?`,
      { key },
    );
  }
  const { format, measure = false } = options;
  const minBytes = readBytes(options.minBytes ?? '64KiB');
  if (!saveFormats.includes(format)) illegal('format', format, saveFormats.join(', '));
  if (minBytes === undefined) illegal('minBytes', options.minBytes, byteForms);
  if (typeof measure !== 'boolean') illegal('measure', measure, 'true or false');
  return { format, minBytes, measure };
}

function illegal(key: string, value: unknown, legal: string): never {
  throw new ArgumentError(
    `compressActivations: ${key} is not legal (got ${JSON.stringify(value) ?? String(value)}). Use ${legal}.`,
    { key, value, legal },
  );
}

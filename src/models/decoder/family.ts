/** What a model family supplies. */

import type { ConfigFields } from './config-fields.ts';
import type { DecoderConfig } from './decoder-config.ts';

export interface ModelFamily {
  /** `architectures[0]` of its config.json. */
  readonly architecture: string;
  /** `model_type` of its config.json. */
  readonly modelType: string;
  /** Throws ConfigError for anything the family's models here cannot do. */
  readonly read: (fields: ConfigFields) => DecoderConfig;
}

/** Rotary settings of a config.json: `rope_parameters` of transformers 5, or `rope_theta` and `rope_scaling`. */

import { ConfigError } from '../../core/errors.ts';
import type { RopeScaling } from '../../nn/rotary.ts';
import type { ConfigFields } from './config-fields.ts';

const kinds = ['default', 'linear', 'llama3'] as const;

export interface RopeSettings {
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
}

export function readRope(fields: ConfigFields): RopeSettings {
  const current = fields.object('rope_parameters');
  const older = fields.object('rope_scaling');
  if (current && older && JSON.stringify(current.raw) !== JSON.stringify(older.raw)) {
    throw new ConfigError(
      "modelFromConfig: 'rope_parameters' and 'rope_scaling' are both given and differ. Remove 'rope_scaling'.",
      { key: 'rope_scaling', value: older.raw },
    );
  }
  const scaling = current ?? older;
  const theta = current?.has('rope_theta') ? current : fields;
  theta.only('partial_rotary_factor', [1]);
  return {
    ropeTheta: theta.positive('rope_theta', 10_000),
    ropeScaling: scaling ? readScaling(scaling) : { kind: 'none' },
  };
}

function readScaling(scaling: ConfigFields): RopeScaling {
  scaling.only('partial_rotary_factor', [1]);
  // Older files say `type`.
  const key = scaling.has('rope_type') ? 'rope_type' : 'type';
  const kind = scaling.only(key, kinds) ?? 'default';
  switch (kind) {
    case 'default':
      return { kind: 'none' };
    case 'linear':
      return { kind: 'linear', factor: scaling.positive('factor') };
    case 'llama3':
      return {
        kind: 'llama3',
        factor: scaling.positive('factor'),
        lowFreqFactor: scaling.positive('low_freq_factor'),
        highFreqFactor: scaling.positive('high_freq_factor'),
        originalMaxPositions: scaling.positiveInteger('original_max_position_embeddings'),
      };
  }
}

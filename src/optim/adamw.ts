/** AdamW: Adam with decoupled weight decay (arXiv 1711.05101), in the order of operations of PyTorch. */

import { ConfigError } from '../core/errors.ts';
import { adamwUpdate } from '../ops/optim/adamw-update.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type GroupOf, Optimizer, type ParameterList } from './optimizer.ts';
import { checkNonNegative } from './settings.ts';

export interface AdamWSettings {
  /** Default 1e-3. */
  lr: number;
  /** Decay of the averages of the gradient and of its square; default 0.9 and 0.999. */
  betas: readonly [number, number];
  /** Default 1e-8. */
  eps: number;
  /** Default 0.01. */
  weightDecay: number;
}

/** torch.optim.AdamW. State: `exp_avg` and `exp_avg_sq`, in the parameter's dtype. */
export class AdamW extends Optimizer<AdamWSettings> {
  /** Throws ConfigError for settings out of range. */
  constructor(
    params: ParameterList | readonly GroupOf<AdamWSettings>[],
    settings: Partial<AdamWSettings> = {},
  ) {
    super(params, { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, ...settings });
  }

  protected override check(settings: AdamWSettings): void {
    checkNonNegative('AdamW', settings, ['lr', 'eps', 'weightDecay']);
    for (const beta of settings.betas) {
      if (beta >= 0 && beta < 1) continue;
      throw new ConfigError(
        `AdamW: 'betas' must lie in [0, 1) (got ${settings.betas.join(', ')}). Use values such as 0.9 and 0.999.`,
        { key: 'betas', value: settings.betas },
      );
    }
  }

  protected override variant(): string {
    return 'adamw';
  }

  protected override scalarsOf(settings: AdamWSettings, step: number): readonly number[] {
    const { lr, betas, eps, weightDecay } = settings;
    // Rounded as the kernel reads them, so that corrections and averages belong to the same decay.
    const [beta1, beta2] = betas.map(Math.fround) as [number, number];
    return [
      lr,
      beta1,
      beta2,
      eps,
      weightDecay,
      1 - beta1 ** step,
      1 - beta2 ** step,
      this.gradScale,
    ];
  }

  protected override update(
    parameter: Tensor,
    gradient: Tensor,
    scalars: Tensor,
    _settings: AdamWSettings,
    state: (slot: string) => Tensor,
  ): void {
    adamwUpdate(parameter, gradient, state('exp_avg'), state('exp_avg_sq'), scalars);
  }
}

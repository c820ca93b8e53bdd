/** Stochastic gradient descent with momentum, in the order of operations of PyTorch. */

import { ConfigError } from '../core/errors.ts';
import { sgdUpdate } from '../ops/optim/sgd-update.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type GroupOf, Optimizer, type ParameterList } from './optimizer.ts';
import { checkNonNegative } from './settings.ts';

export interface SgdSettings {
  /** Default 1e-3. */
  lr: number;
  /** Default 0. */
  momentum: number;
  /** Share by which a new gradient enters the momentum less; default 0. */
  dampening: number;
  /** Default 0. Added to the gradient, not decoupled. */
  weightDecay: number;
  /** Default false. Needs momentum and no dampening. */
  nesterov: boolean;
}

/** torch.optim.SGD. State: `momentum_buffer`, when there is momentum. */
export class Sgd extends Optimizer<SgdSettings> {
  /** Throws ConfigError for settings out of range. */
  constructor(
    params: ParameterList | readonly GroupOf<SgdSettings>[],
    settings: Partial<SgdSettings> = {},
  ) {
    super(params, {
      lr: 1e-3,
      momentum: 0,
      dampening: 0,
      weightDecay: 0,
      nesterov: false,
      ...settings,
    });
  }

  protected override check(settings: SgdSettings): void {
    checkNonNegative('Sgd', settings, ['lr', 'momentum', 'weightDecay']);
    if (settings.nesterov && (settings.momentum === 0 || settings.dampening !== 0)) {
      throw new ConfigError(
        `Sgd: 'nesterov' needs momentum and no dampening (got momentum ${settings.momentum}, dampening ${settings.dampening}). ` +
          'Set momentum above 0 and dampening to 0.',
        { key: 'nesterov', value: true },
      );
    }
  }

  protected override variant({ momentum, nesterov }: SgdSettings): string {
    return momentum === 0 ? 'plain' : nesterov ? 'nesterov' : 'momentum';
  }

  protected override scalarsOf(settings: SgdSettings, step: number): readonly number[] {
    const { lr, momentum, dampening, weightDecay } = settings;
    // The momentum starts as the first gradient, undamped.
    return [lr, momentum, step === 1 ? 0 : dampening, weightDecay, this.gradScale];
  }

  protected override update(
    parameter: Tensor,
    gradient: Tensor,
    scalars: Tensor,
    settings: SgdSettings,
    state: (slot: string) => Tensor,
  ): void {
    const buffer = settings.momentum === 0 ? undefined : state('momentum_buffer');
    sgdUpdate(parameter, gradient, buffer, scalars, { nesterov: settings.nesterov });
  }
}

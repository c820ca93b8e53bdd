/**
 * `compile(step)`: traces a whole training step on its first call for each combination of argument
 * shapes, plans it, and then runs the plan. Everything that changes from call to call is an argument,
 * captured state, or host work that the step asked to have done before each run.
 */

import { ArgumentError, CompileError } from '../core/errors.ts';
import { clone } from '../ops/views.ts';
import { currentBackend } from '../tensor/backend.ts';
import { noGrad } from '../tensor/context.ts';
import { currentMode } from '../tensor/mode.ts';
import { mapTensors } from '../tensor/structure.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { scope } from '../tensor/with-scope.ts';
import type { StepOptions } from './plan-step.ts';
import { signature } from './signature.ts';
import { type StepPlan, Variant } from './variant.ts';

export type { StepPlan } from './variant.ts';

export interface CompileOptions extends StepOptions {
  /**
   * Plans for one combination of arguments, at most: past that the step runs uncompiled, with a warning
   * that says what keeps changing. Default 8.
   */
  readonly recompileLimit?: number;
}

export interface CompiledStep<A extends readonly unknown[], R> {
  (...args: A): R;
  /** Plans so far: one per combination of argument shapes, plain arguments and state of the host. */
  readonly plans: readonly StepPlan[];
  /** Traces and plans for these arguments without running. */
  prepare(...args: A): StepPlan;
  /** Milliseconds of each launch of one run, with its label. The run takes effect. */
  profile(...args: A): readonly { readonly label: string; readonly ms: number }[];
  /** Forgets all plans and frees what they hold. */
  dispose(): void;
}

/**
 * A function that does what `step` does, compiled. `step` may use tensors from outside (parameters,
 * optimizer state), change them in place, call backward and optimizers; it must not read values on the
 * host. Non-tensor arguments are baked in: each distinct value gets its own plan, and so does each
 * object of a class. So does state of the host that the step reads: gradient mode around the call,
 * train and eval, applied checkpointing, whether leaves want and have a gradient, their hooks. Numbers
 * and objects that the step reads from elsewhere are baked in for good: pass them as arguments.
 *
 * Arguments that the step changes in place get their last values after the run; gradients that it leaves
 * in `.grad`, and flags that it sets, are there after the run as they would be without compilation.
 * Results are tensors of their own, without history, even where the step returns an argument or a captured
 * tensor. Throws CompileError, with the offending line where there is one, for anything that cannot be
 * traced, and for memory that the step changes and that is passed under two names; DisposedError when a
 * captured tensor is gone.
 */
export function compile<A extends readonly unknown[], R>(
  step: (...args: A) => R,
  options: CompileOptions = {},
): CompiledStep<A, R> {
  const limit = options.recompileLimit ?? defaultRecompileLimit;
  if (!(Number.isInteger(limit) && limit >= 1)) {
    throw new ArgumentError(
      `compile: recompileLimit must be an integer of at least 1 (got ${limit}). Leave it out for ${defaultRecompileLimit}.`,
      { recompileLimit: limit },
    );
  }
  /** By signature of the arguments; the one used last comes first. */
  const variants = new Map<string, Variant<A, R>[]>();
  let warned = false;
  const variantOf = (args: A): Variant<A, R> | undefined => {
    if (currentMode().tracing) {
      throw new CompileError(
        'compile: a compiled step was called inside another one. Call the plain function there.',
      );
    }
    const key = signature(args);
    const usable = (variants.get(key) ?? []).filter((variant) => {
      const good = variant.backend === currentBackend() && !variant.dead;
      if (!good) variant.dispose();
      return good;
    });
    variants.set(key, usable);
    const at = usable.findIndex((variant) => variant.holds());
    if (at > 0) usable.unshift(...usable.splice(at, 1));
    if (at >= 0) return usable[0];
    const reason = usable[0]?.mismatch() ?? 'first call with these arguments';
    if (usable.length >= limit) {
      if (!warned) warnOfLimit(limit, reason);
      warned = true;
      return undefined;
    }
    const made = new Variant(step, args, options, currentBackend(), reason);
    usable.unshift(made);
    return made;
  };
  const planned = (args: A): Variant<A, R> => {
    const variant = variantOf(args);
    if (variant) return variant;
    throw new CompileError(
      `compile: the recompile limit is reached (got ${limit} plans for these arguments), so there is no plan. ` +
        'Raise recompileLimit, or keep the state of the host as it was.',
      { recompileLimit: limit },
    );
  };
  const run = (...args: A): R => {
    const variant = variantOf(args);
    return variant ? variant.run(args) : runUncompiled(step, args);
  };
  const all = (): Variant<A, R>[] => [...variants.values()].flat();
  const plans = (): StepPlan[] =>
    all()
      .sort((a, b) => a.serial - b.serial)
      .map((variant) => variant.info);
  Object.defineProperty(run, 'plans', { get: plans });
  return Object.assign(run as typeof run & { readonly plans: readonly StepPlan[] }, {
    prepare: (...args: A): StepPlan => planned(args).info,
    profile: (...args: A) => planned(args).profile(args),
    dispose: (): void => {
      for (const variant of all()) variant.dispose();
      variants.clear();
    },
  });
}

/** As torch.compile's cache_size_limit. */
const defaultRecompileLimit = 8;

function warnOfLimit(limit: number, reason: string): void {
  globalThis.process?.emitWarning(
    `compile: the recompile limit is reached: ${limit} plans for the same arguments, and none fits because ${reason}. ` +
      'The step runs uncompiled. Keep what changes out of the step, pass it as an argument, or raise recompileLimit.',
  );
}

/** Results without history, as those of a plan. */
function runUncompiled<A extends readonly unknown[], R>(step: (...args: A) => R, args: A): R {
  return scope(() => {
    const twins = new Map<Tensor, Tensor>();
    return mapTensors(step(...args), (tensor) => {
      const twin = twins.get(tensor) ?? noGrad(() => clone(tensor));
      twins.set(tensor, twin);
      return twin;
    });
  });
}

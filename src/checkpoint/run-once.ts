/** Side effects of a region that must not happen again in its recompute (C8). */

import { CheckpointError } from '../core/errors.ts';
import { noGrad } from '../tensor/context.ts';
import { type Mode, withMode } from '../tensor/mode.ts';
import { mapTensors } from '../tensor/structure.ts';

/** Hands on the results of one region's runOnce calls, in order. */
export class OnceRecord {
  readonly #results: unknown[] = [];

  /** For forward: notes results. `outside` is the mode around the region, which sees what they do. */
  recording(outside: Mode): OnceUser {
    return { replays: false, outside, note: (result) => this.#results.push(keep(result)) };
  }

  /** For one recompute: gives them back. */
  replaying(): OnceUser {
    let next = 0;
    return {
      replays: true,
      next: () => {
        if (next < this.#results.length) return lend(this.#results[next++]);
        throw new CheckpointError(
          `runOnce: the recompute of a region calls it more often than its forward (got call ${next + 1}). ` +
            'Make the region do the same work each time.',
        );
      },
    };
  }

  release(): void {
    mapTensors(this.#results, (tensor) => {
      tensor.dispose();
      return tensor;
    });
    this.#results.length = 0;
  }
}

type OnceUser =
  | { readonly replays: false; readonly outside: Mode; readonly note: (result: unknown) => void }
  | { readonly replays: true; readonly next: () => unknown };

/** Regions that are running, outermost first. */
const running: OnceUser[] = [];

/** Runs `body` as one of the two runs of a region. */
export function withOnce<T>(user: OnceUser, body: () => T): T {
  running.push(user);
  try {
    return body();
  } finally {
    running.pop();
  }
}

/** Runs `body` as if no region were running. */
export function withoutOnce<T>(body: () => T): T {
  const present = running.splice(0);
  try {
    return body();
  } finally {
    running.push(...present);
  }
}

/**
 * Runs `fn` in the forward of a region only; the recompute gets what it returned. For side effects and
 * for what must not be decided twice: counters, running statistics, collected losses. No gradient flows
 * through the result. Outside a region it just runs `fn`.
 *
 * Throws CheckpointError when a recompute calls it more often than forward did.
 */
export function runOnce<T>(fn: () => T): T {
  const known = running.find((user) => user.replays);
  const result = known?.replays ? (known.next() as T) : noGrad(() => outsideRegions(fn));
  // Regions around a recompute, and those that run for the first time in one, have theirs still to come.
  for (const user of running) if (!user.replays) user.note(result);
  return result;
}

/** Runs `fn` unseen by the modes of the regions around it: their recomputes do not have its ops. */
function outsideRegions<T>(fn: () => T): T {
  const [outermost] = running;
  return outermost?.replays === false ? withMode(() => outermost.outside, fn) : fn();
}

function keep(result: unknown): unknown {
  return mapTensors(result, (tensor) => tensor.detach().keep());
}

function lend(result: unknown): unknown {
  return mapTensors(result, (tensor) => tensor.detach());
}

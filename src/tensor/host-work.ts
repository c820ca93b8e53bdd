/** Host work of a step that the rest of the step, too, must see: a learning rate, a count. */

import { type HostState, noteWrite } from './host-state.ts';
import { currentMode } from './mode.ts';

/**
 * Does `work`, which changes `state` of `owner`: now, and in a compiled step before each run, in the order
 * in which the step asked for it. While the step is traced it is done as well, and undone afterwards, so
 * `state` must be one that ends with the step.
 */
export function onEveryRun<O extends object, V>(
  owner: O,
  state: HostState<O, V>,
  work: () => void,
): void {
  const mode = currentMode();
  if (mode.tracing) {
    noteWrite(owner, state);
    work();
  }
  mode.onEachRun(work);
}

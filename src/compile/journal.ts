/**
 * What a traced step read and wrote of the host's state. Reads of values that were there before the
 * trace are guards: the trace is good for as long as they hold (as torch.compile's guards). Writes are
 * undone when the trace ends, and done again by every run.
 */

import type { HostState, StateListener } from '../tensor/host-state.ts';
import { Tensor } from '../tensor/tensor.ts';

/** A condition for using a trace again. */
export interface Guard {
  holds(): boolean;
  /** For a guard that does not hold: `training of layers.0 was true, is false`. */
  explain(): string;
  /** Once it does not hold it never will again. */
  readonly forever?: boolean;
}

/** What the step left in the state of the host. */
export interface Effect {
  /** The leaf whose gradient it is, and the gradient that the trace left there; for gradients only. */
  readonly gradient?: { readonly leaf: Tensor; readonly value: Tensor | undefined };
  /** Nothing read the old value, so it may be replaced before the run. */
  readonly early: boolean;
  apply(): void;
}

interface Entry {
  readonly guard: Guard | undefined;
  /** The effect, if there is one; to be asked for at the end of the trace. */
  readonly effect: () => Effect | undefined;
  readonly undo: () => void;
  written: boolean;
}

export class Journal implements StateListener {
  readonly #entries = new Map<object, Map<unknown, Entry>>();
  /** In the order in which the step came to them. */
  readonly #all: Entry[] = [];
  readonly #kept = new Set<unknown>();
  /** Memory of gradients that were there before the trace, by leaf. */
  readonly #gradients = new Map<object, Tensor>();
  #open = true;

  onRead<O extends object, V>(owner: O, state: HostState<O, V>): void {
    if (this.#open) this.#touch(owner, state, true);
  }

  onWrite<O extends object, V>(owner: O, state: HostState<O, V>): void {
    if (this.#open) this.#touch(owner, state, false).written = true;
  }

  keeps(value: unknown): boolean {
    return value !== undefined && this.#kept.has(value);
  }

  /** Whether the step read or wrote this state of something from outside. */
  knows<O extends object, V>(owner: O, state: HostState<O, V>): boolean {
    return this.#entries.get(owner)?.has(state) ?? false;
  }

  /** Whether the step has set this state by now. */
  wrote<O extends object, V>(owner: O, state: HostState<O, V>): boolean {
    return this.#entries.get(owner)?.get(state)?.written ?? false;
  }

  /** The leaf in whose `.grad` this memory was found. */
  leafOfGradient(memory: object): Tensor | undefined {
    return this.#gradients.get(memory);
  }

  guards(): Guard[] {
    return this.#all.flatMap(({ guard }) => guard ?? []);
  }

  effects(): Effect[] {
    return this.#all.flatMap(({ effect }) => effect() ?? []);
  }

  /** Ends the journal: puts back what the trace changed. */
  restore(): void {
    this.#open = false;
    for (const { undo } of this.#all.toReversed()) undo();
    this.#kept.clear();
  }

  #touch<O extends object, V>(owner: O, state: HostState<O, V>, read: boolean): Entry {
    let byState = this.#entries.get(owner);
    if (!byState) {
      byState = new Map();
      this.#entries.set(owner, byState);
    }
    const known = byState.get(state);
    if (known) return known;
    const before = state.get(owner);
    if (before instanceof Tensor && !before.disposed) {
      this.#kept.add(before);
      if (read) this.#gradients.set(before.data.root, owner as unknown as Tensor);
    }
    const entry = entryOf(owner, state, before, read);
    byState.set(state, entry);
    this.#all.push(entry);
    return entry;
  }
}

function entryOf<O extends object, V>(
  owner: O,
  state: HostState<O, V>,
  before: V,
  read: boolean,
): Entry {
  const image = imageOf(state, before);
  const guard: Guard = {
    holds: () => {
      const value = state.get(owner);
      return state.sameImage ? state.sameImage(value, image) : Object.is(value, image);
    },
    explain: () => {
      const show = state.show ?? String;
      const now = imageOf(state, state.get(owner));
      return `${state.describe(owner)} was ${show(image)}, is ${show(now)}`;
    },
  };
  const effect = (): Effect | undefined => {
    const { set } = state;
    const after = state.get(owner);
    if (!set || state.endsWithStep || (read && Object.is(after, before))) return undefined;
    const apply = (): void => set(owner, after);
    if (!(owner instanceof Tensor && isGradient(state))) return { apply, early: false };
    const value = after as Tensor | undefined;
    return { apply, early: !read, gradient: { leaf: owner, value } };
  };
  const undo = (): void => {
    if (state.set && !Object.is(state.get(owner), before)) state.set(owner, before);
  };
  return { guard: read ? guard : undefined, effect, undo, written: false };
}

function isGradient(state: object): boolean {
  return state === Tensor.gradState;
}

function imageOf<O extends object, V>(state: HostState<O, V>, value: V): unknown {
  return state.image ? state.image(value) : value;
}

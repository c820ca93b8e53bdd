/**
 * The order in which values were saved, in groups of those that one op saved together. Backward needs
 * groups from the last to the first. A group leaves the list with its last value.
 */

export interface SaveGroup<T> {
  /** The values, with how often each was saved in this group. */
  readonly values: Map<T, number>;
  /** The group before, of those that are left. */
  previous: SaveGroup<T> | undefined;
  next: SaveGroup<T> | undefined;
}

export class GroupList<T> {
  #last: SaveGroup<T> | undefined;
  #open: SaveGroup<T> | undefined;

  /** The latest group. */
  get last(): SaveGroup<T> | undefined {
    return this.#last;
  }

  /** Adds a value to the open group, which it opens if there is none. */
  add(value: T): SaveGroup<T> {
    const group = this.#open ?? this.#append();
    group.values.set(value, (group.values.get(value) ?? 0) + 1);
    return group;
  }

  /** Ends the open group; whether there was one. */
  close(): boolean {
    const open = this.#open !== undefined;
    this.#open = undefined;
    return open;
  }

  remove(group: SaveGroup<T>, value: T): void {
    const left = (group.values.get(value) ?? 0) - 1;
    if (left > 0) {
      group.values.set(value, left);
      return;
    }
    group.values.delete(value);
    if (group.values.size > 0) return;
    if (group.previous) group.previous.next = group.next;
    if (group.next) group.next.previous = group.previous;
    if (this.#last === group) this.#last = group.previous;
    if (this.#open === group) this.#open = undefined;
  }

  #append(): SaveGroup<T> {
    const group: SaveGroup<T> = { values: new Map(), previous: this.#last, next: undefined };
    if (this.#last) this.#last.next = group;
    this.#last = group;
    this.#open = group;
    return group;
  }
}

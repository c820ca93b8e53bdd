/**
 * Prepares batches ahead of their use. At most `depth` batches exist besides the one in use; they are
 * asked for one after the other, so the order is that of the source. The state is the one that belongs
 * to the last batch given out, not to the last one prepared: a resume repeats what was in the queue.
 */

import { ArgumentError } from '../../core/errors.ts';
import type { Batch, BatchSource, BatchState } from './batches.ts';

/** A source that works ahead. Its `source` must not be used directly until `close`. */
export class Prefetcher implements BatchSource, AsyncDisposable {
  readonly #source: BatchSource;
  readonly #depth: number;
  readonly #queue: Promise<Prepared>[] = [];
  #last: Promise<unknown> = Promise.resolve();
  #state: BatchState;
  #closed = false;

  constructor(source: BatchSource, depth = 2) {
    if (!Number.isInteger(depth) || depth < 1) {
      throw new ArgumentError(
        `Prefetcher: depth must be a positive integer (got ${depth}). Use 2, or no prefetcher.`,
        { depth },
      );
    }
    this.#source = source;
    this.#depth = depth;
    this.#state = source.state();
    this.#refill();
  }

  /** The next batch. An error of the source is thrown where its batch would have come, and again after. */
  async next(): Promise<Batch> {
    const first = this.#queue.shift();
    if (this.#closed || first === undefined) {
      throw new ArgumentError('Prefetcher.next: the prefetcher is closed. Make another one.');
    }
    this.#refill();
    const { batch, state } = await first;
    this.#state = state;
    return batch;
  }

  state(): BatchState {
    return this.#state;
  }

  /** Waits for what is being prepared and drops it. The source is ahead of `state()` then. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#queue.splice(0));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #refill(): void {
    while (this.#queue.length < this.#depth) {
      const prepared = this.#last.then(() => this.#prepare());
      // The error belongs to the call of next() that meets it; unread, it must not end the process.
      prepared.catch(() => {});
      this.#last = prepared;
      this.#queue.push(prepared);
    }
  }

  async #prepare(): Promise<Prepared> {
    const batch = await this.#source.next();
    return { batch, state: this.#source.state() };
  }
}

interface Prepared {
  readonly batch: Batch;
  readonly state: BatchState;
}

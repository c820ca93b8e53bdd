/**
 * When transfers begin and when they are waited for. Placing waits for each at once. Here a store gets time until the memory
 * of its value is wanted, and a fetch starts as long before its first reader as the copy is estimated to take, so
 * that kernels run meanwhile. What that would hold in memory longer must fit under a limit.
 */

import { definite } from '../core/errors.ts';
import { placedNs } from './cost-model.ts';
import type { PlacedBuffer, PlacedLaunch, PlacedStep, PlacedTransfer } from './placement.ts';
import { type TransferRates, fetchNs, storeNs } from './transfer-rates.ts';

/** A start and its wait, each in front of a launch: `launches.length` is the end of the program. */
interface Span {
  readonly start: PlacedTransfer;
  readonly wait: PlacedTransfer;
  readonly buffer: PlacedBuffer;
  from: number;
  to: number;
}

/**
 * The steps of a placement in a new order. `buffers` have the lifetimes of the order given; those of the result are still
 * to be set. At no launch more than `limitBytes` of arena buffers are live on account of this.
 */
export function spreadTransfers(
  steps: readonly PlacedStep[],
  buffers: readonly PlacedBuffer[],
  limitBytes: number,
  rates: TransferRates,
): PlacedStep[] {
  const spread = new Spread(steps, buffers, limitBytes, rates);
  spread.delayStores();
  spread.advanceFetches();
  return spread.steps();
}

class Spread {
  readonly #launches: PlacedLaunch[] = [];
  readonly #stores = new Map<number, Span>();
  readonly #fetches: Span[] = [];
  /** For each step as given, and one more: launches before it. */
  readonly #before: number[] = [];
  /** When each launch begins, in nanoseconds without any waiting; the end of the last one comes after. */
  readonly #begins: number[] = [0];
  /** Arena bytes in use during each launch. */
  readonly #live: Float64Array;
  readonly #limit: number;
  readonly #rates: TransferRates;

  constructor(
    steps: readonly PlacedStep[],
    buffers: readonly PlacedBuffer[],
    limit: number,
    rates: TransferRates,
  ) {
    this.#limit = limit;
    this.#rates = rates;
    steps.forEach((step, i) => {
      this.#before.push(this.#launches.length);
      if (step.kind === 'launch') {
        this.#launches.push(step);
        this.#begins.push(definite(this.#begins.at(-1)) + placedNs(step));
      } else if (step.kind === 'store' || step.kind === 'fetch') {
        this.#open(step, steps[i + 1] as PlacedTransfer);
      }
    });
    this.#before.push(this.#launches.length);
    this.#live = new Float64Array(this.#launches.length);
    for (const buffer of buffers) {
      if (buffer.kind !== 'arena' || buffer.last < 0) continue;
      const end = this.#endOf(buffer);
      for (let i = definite(this.#before[buffer.first]); i < end; i++) this.#add(i, buffer.bytes);
    }
  }

  /** Placing puts the wait right behind its start. */
  #open(start: PlacedTransfer, wait: PlacedTransfer): void {
    const at = this.#launches.length;
    const { buffer } = definite(start.operands[0]);
    const span: Span = { start, wait, buffer, from: at, to: at };
    if (start.kind === 'store') this.#stores.set(start.parcel, span);
    else this.#fetches.push(span);
  }

  delayStores(): void {
    let finish = 0;
    for (const span of this.#stores.values()) {
      const begin = definite(this.#begins[span.from]);
      finish = Math.max(finish, begin) + storeNs(span.start.bytes, this.#rates);
      const latest = Math.min(this.#firstWriter(span), this.#firstFetch(span.start.parcel));
      const end = this.#endOf(span.buffer);
      span.to = Math.max(span.from, Math.min(end, latest));
      while (span.to < latest && definite(this.#begins[span.to]) < finish) {
        if (span.to >= end && !this.#hold(span.to, span.buffer)) break;
        span.to++;
      }
    }
  }

  /** From the last one on: a copy must be over when the next is to begin. */
  advanceFetches(): void {
    let next = Number.POSITIVE_INFINITY;
    for (const span of this.#fetches.toReversed()) {
      const need = definite(this.#begins[span.to]);
      const begin = Math.min(need, next) - fetchNs(span.start.bytes, this.#rates);
      const earliest = definite(this.#stores.get(span.start.parcel)).to;
      while (span.from > earliest && definite(this.#begins[span.from]) > begin) {
        if (!this.#hold(span.from - 1, span.buffer)) break;
        span.from--;
      }
      next = definite(this.#begins[span.from]);
    }
  }

  steps(): PlacedStep[] {
    const at: PlacedTransfer[][][] = Array.from({ length: this.#launches.length + 1 }, () => [
      [],
      [],
      [],
      [],
    ]);
    const put = (place: number, rank: number, step: PlacedTransfer): void => {
      at[place]?.[rank]?.push(step);
    };
    // In one place memory is given back before more is taken.
    for (const span of this.#stores.values()) {
      put(span.from, 0, span.start);
      put(span.to, 1, span.wait);
    }
    for (const span of this.#fetches) {
      put(span.from, 2, span.start);
      put(span.to, 3, span.wait);
    }
    return at.flatMap((ranks, i) => [...ranks.flat(), ...this.#launches.slice(i, i + 1)]);
  }

  /** Counts the bytes of a buffer in one more launch, unless that would be too much. */
  #hold(launch: number, { kind, bytes }: PlacedBuffer): boolean {
    if (kind !== 'arena') return true;
    if ((this.#live[launch] ?? 0) + bytes > this.#limit) return false;
    this.#add(launch, bytes);
    return true;
  }

  #add(launch: number, bytes: number): void {
    this.#live[launch] = (this.#live[launch] ?? 0) + bytes;
  }

  /** The launch from which on a buffer is not in use in the order given. */
  #endOf(buffer: PlacedBuffer): number {
    return definite(this.#before[buffer.last + 1]);
  }

  /** The first launch that writes over what is being stored. */
  #firstWriter({ from, buffer }: Span): number {
    for (let i = from; i < this.#launches.length; i++) {
      const { operands, lowered } = definite(this.#launches[i]);
      const { length } = lowered.kind === 'kernel' ? lowered.spec.outputs : lowered.outputs;
      if (operands.slice(-length).some((operand) => operand.buffer === buffer)) return i;
    }
    return this.#launches.length;
  }

  #firstFetch(parcel: number): number {
    const first = this.#fetches.find((span) => span.start.parcel === parcel);
    return first?.to ?? this.#launches.length;
  }
}

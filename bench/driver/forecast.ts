/**
 * How long the rest of a run will take. Work is planned in guessed seconds and reported in real ones;
 * each kind of work corrects its own guess, and kinds that were not done yet are taken to be as far
 * off as the others were.
 */

export class Forecast {
  /** Guessed seconds of each kind that are still to be done. */
  readonly #ahead = new Map<string, number>();
  readonly #done = new Map<string, { guessed: number; seconds: number }>();

  /** Announces work of about `guess` seconds. */
  plan(kind: string, guess: number): void {
    this.#ahead.set(kind, (this.#ahead.get(kind) ?? 0) + guess);
  }

  /** Work that was planned with `guess` took `seconds`. */
  finish(kind: string, guess: number, seconds: number): void {
    this.drop(kind, guess);
    const known = this.#done.get(kind) ?? { guessed: 0, seconds: 0 };
    this.#done.set(kind, { guessed: known.guessed + guess, seconds: known.seconds + seconds });
  }

  /** Work that was planned with `guess` will not be done. */
  drop(kind: string, guess: number): void {
    this.#ahead.set(kind, Math.max(0, (this.#ahead.get(kind) ?? 0) - guess));
  }

  /** Undefined before anything was finished. */
  get secondsLeft(): number | undefined {
    const all = [...this.#done.values()];
    const guessed = all.reduce((sum, one) => sum + one.guessed, 0);
    if (guessed === 0) return undefined;
    const overall = all.reduce((sum, one) => sum + one.seconds, 0) / guessed;
    return [...this.#ahead].reduce((sum, [kind, guess]) => {
      const own = this.#done.get(kind);
      return sum + guess * (own && own.guessed > 0 ? own.seconds / own.guessed : overall);
    }, 0);
  }
}

/** `40 s`, `7 min`, `1 h 20 min`. */
export function durationText(seconds: number): string {
  if (seconds < 59.5) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Ctrl-C and SIGTERM: the first asks the run to stop after the present step, the second ends it at once. */

export class InterruptWatch implements Disposable {
  #signal: NodeJS.Signals | undefined;
  readonly #listen = (signal: NodeJS.Signals): void => {
    if (this.#signal !== undefined) process.exit(exitCodeOf(signal));
    this.#signal = signal;
    this.#onFirst();
  };
  readonly #onFirst: () => void;

  /** `onFirst` is called when the first signal comes. */
  constructor(onFirst: () => void) {
    this.#onFirst = onFirst;
    process.on('SIGINT', this.#listen);
    process.on('SIGTERM', this.#listen);
  }

  /** Whether the run should stop. */
  get requested(): boolean {
    return this.#signal !== undefined;
  }

  /** Exit code by the shell's convention: 130 for Ctrl-C, 143 for SIGTERM. */
  get exitCode(): number {
    return this.#signal === undefined ? 0 : exitCodeOf(this.#signal);
  }

  [Symbol.dispose](): void {
    process.off('SIGINT', this.#listen);
    process.off('SIGTERM', this.#listen);
  }
}

function exitCodeOf(signal: NodeJS.Signals): number {
  return signal === 'SIGTERM' ? 143 : 130;
}

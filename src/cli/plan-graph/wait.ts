/** Says on stderr how far long planning is: from the second second on, in place on a terminal. */

import { formatSeconds } from '../../recipes/run/progress.ts';

export class Wait {
  readonly #stream: NodeJS.WriteStream;
  readonly #quietMs: number;
  readonly #began = performance.now();
  #lastShown: number;
  #isShown = false;

  /** @param quietMs before the first word; a log file gets a line every ten times that. */
  constructor(stream: NodeJS.WriteStream = process.stderr, quietMs = 1000) {
    this.#stream = stream;
    this.#quietMs = quietMs;
    this.#lastShown = performance.now();
  }

  /** `done` in 0..1. */
  show(what: string, done: number): void {
    const now = performance.now();
    const pause = this.#stream.isTTY || !this.#isShown ? this.#quietMs : 10 * this.#quietMs;
    if (now - this.#lastShown < pause) return;
    this.#lastShown = now;
    this.#isShown = true;
    const left = done > 0 ? ((now - this.#began) * (1 - done)) / done / 1000 : undefined;
    const text = `${what}: ${Math.floor(100 * done)} %${left === undefined ? '' : `, ${formatSeconds(left)} left`}`;
    this.#stream.write(this.#stream.isTTY ? `\r\x1b[2K${text}` : `${text}\n`);
  }

  /** Clears the line. */
  stop(): void {
    if (this.#isShown && this.#stream.isTTY) this.#stream.write('\r\x1b[2K');
  }
}

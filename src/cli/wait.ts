/** Says on stderr how far long work is: from the second second on, in place on a terminal. */

import { formatSeconds } from '../recipes/run/progress.ts';

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

  /** `done` in 0..1; undefined when nobody knows. */
  show(what: string, done?: number): void {
    const now = performance.now();
    const pause = this.#stream.isTTY || !this.#isShown ? this.#quietMs : 10 * this.#quietMs;
    if (now - this.#lastShown < pause) return;
    this.#lastShown = now;
    this.#isShown = true;
    const text = `${what}${this.#share(done, now)}`;
    this.#stream.write(this.#stream.isTTY ? `\r\x1b[2K${text}` : `${text}\n`);
  }

  #share(done: number | undefined, now: number): string {
    if (done === undefined) return ' ...';
    const percent = `: ${Math.floor(100 * done)} %`;
    if (done === 0) return percent;
    const left = ((now - this.#began) * (1 - done)) / done / 1000;
    return `${percent}, ${formatSeconds(left)} left`;
  }

  /** Clears the line. */
  stop(): void {
    if (this.#isShown && this.#stream.isTTY) this.#stream.write('\r\x1b[2K');
  }
}

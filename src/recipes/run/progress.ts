/**
 * What a run shows while it trains: on a terminal a bar with loss, speed, step memory and time left; in
 * a log file a plain line now and then.
 */

import { Presets, SingleBar } from 'cli-progress';
import { formatBytes } from '../../core/bytes.ts';

export interface StepReport {
  /** Steps done. */
  readonly step: number;
  readonly loss: number;
  readonly tokensPerSecond: number;
  /** Bytes. */
  readonly stepMemory: number;
}

export interface ProgressOptions {
  readonly total: number;
  /** Steps done before, by a run that is resumed. */
  readonly start: number;
  /** Where it goes; default stderr, so that results on stdout can be piped. */
  readonly stream?: NodeJS.WriteStream;
  /** Seconds between plain lines; default 10. */
  readonly plainSeconds?: number;
}

export class Progress {
  readonly #stream: NodeJS.WriteStream;
  readonly #options: ProgressOptions;
  readonly #bar: SingleBar | undefined;
  readonly #plainMs: number;
  /** When the first step ended: it also compiled, so it says nothing about the others. */
  #firstEnd: { readonly step: number; readonly time: number } | undefined;
  #lastPlain = Number.NEGATIVE_INFINITY;
  /** What was reported but not shown yet, where there is no bar. */
  #unshown: StepReport | undefined;

  constructor(options: ProgressOptions) {
    this.#options = options;
    this.#stream = options.stream ?? process.stderr;
    this.#plainMs = 1000 * (options.plainSeconds ?? 10);
    if (this.#stream.isTTY) {
      this.#bar = new SingleBar(
        {
          stream: this.#stream,
          format:
            '{bar} {value}/{total}  loss {loss}  {speed} tok/s  step memory {memory}  {left} left',
          barsize: 24,
          hideCursor: true,
          emptyOnZero: true,
          gracefulExit: false,
        },
        Presets.shades_classic,
      );
      this.#bar.start(options.total, options.start, {
        loss: '-',
        speed: '-',
        memory: '-',
        left: '-',
      });
    }
  }

  update(report: StepReport): void {
    this.#firstEnd ??= { step: report.step, time: performance.now() };
    if (this.#bar) {
      this.#bar.update(report.step, {
        loss: report.loss.toFixed(3),
        speed: formatCount(report.tokensPerSecond),
        memory: formatBytes(report.stepMemory),
        left: this.#left(report.step),
      });
      return;
    }
    this.#unshown = report;
    if (performance.now() - this.#lastPlain >= this.#plainMs) this.#plain(report);
  }

  /** A line of text that stays, above the bar. */
  note(line: string): void {
    if (this.#bar) {
      // The bar draws itself again at its next update, below the line. The cursor is saved there, as the
      // bar goes back to the saved place when it stops.
      this.#stream.write(`\r\x1b[2K${line}\n\x1b7`);
    } else {
      this.#stream.write(`${line}\n`);
    }
  }

  /** Shows the last state and gives the terminal back. */
  stop(): void {
    this.#bar?.stop();
    if (this.#unshown) this.#plain(this.#unshown);
  }

  #plain(report: StepReport): void {
    this.#lastPlain = performance.now();
    this.#unshown = undefined;
    const { step, loss, tokensPerSecond, stepMemory } = report;
    this.#stream.write(
      `step ${step}/${this.#options.total}  loss ${loss.toFixed(4)}  ${formatCount(tokensPerSecond)} tok/s  ` +
        `step memory ${formatBytes(stepMemory)}  ${this.#left(step)} left\n`,
    );
  }

  #left(step: number): string {
    if (!this.#firstEnd || step <= this.#firstEnd.step) return '-';
    const perStep = (performance.now() - this.#firstEnd.time) / (step - this.#firstEnd.step);
    return formatSeconds((perStep * (this.#options.total - step)) / 1000);
  }
}

/** 1234567 is "1,234,567"; below 100 one decimal is kept. */
export function formatCount(value: number): string {
  if (value < 100) return value.toFixed(1);
  return Math.round(value).toLocaleString('en-US');
}

/** 3725 is "1h02m", 65 "1m05s", 9.4 "9s". */
export function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value: number): string => String(value).padStart(2, '0');
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  return `${Math.floor(whole / 3600)}h${two(Math.floor((whole % 3600) / 60))}m`;
}

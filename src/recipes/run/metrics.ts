/**
 * `metrics.jsonl` of a run folder: one JSON object on a line, appended and flushed as the run goes. A
 * resumed run first drops what a later, lost part of the run had written.
 */

import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { writeFileAtomic } from '../../data/files/atomic.ts';
import { fileErrorFrom } from '../../core/file-error.ts';
import type { MemoryChoice } from '../memory/choice.ts';

/** One line. Training lines have `loss`, evaluation lines `validation_loss`, the first line of mode auto `memory`. */
export interface MetricsLine {
  readonly step: number;
  /** Mean cross entropy, nats per token. */
  readonly loss?: number;
  readonly validation_loss?: number;
  readonly lr?: number;
  /** Before clipping. */
  readonly grad_norm?: number;
  readonly tokens_per_second?: number;
  /** Bytes: peak of the step besides parameters and optimizer state. */
  readonly step_memory?: number;
  /** What mode auto chose. */
  readonly memory?: MemoryChoice;
  /** Seconds since the run began or resumed. */
  readonly seconds?: number;
}

export class MetricsFile {
  readonly path: string;

  constructor(outputDir: string) {
    this.path = join(outputDir, 'metrics.jsonl');
  }

  /** Empties the file, or keeps the lines up to and including `step` when a run resumes there. */
  async begin(step: number): Promise<void> {
    mkdirSync(dirname(this.path), { recursive: true });
    const kept = step === 0 ? [] : this.#lines().filter((line) => stepOf(line) <= step);
    await writeFileAtomic(this.path, kept.map((line) => `${line}\n`).join(''));
  }

  /** Throws FileError when it cannot be written. */
  append(line: MetricsLine): void {
    try {
      appendFileSync(this.path, `${JSON.stringify(line)}\n`);
    } catch (cause) {
      throw fileErrorFrom('MetricsFile.append', this.path, cause);
    }
  }

  #lines(): string[] {
    if (!existsSync(this.path)) return [];
    return readFileSync(this.path, 'utf8').split('\n');
  }
}

/** Infinity for a line that a killed process left unfinished. */
function stepOf(line: string): number {
  try {
    return (JSON.parse(line) as MetricsLine).step;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** Everything a run found; what the JSON report holds. */

import type { EnvironmentName } from '../contestants.ts';
import type { MachineFacts } from '../driver/machine.ts';
import type { AnswerOf } from '../driver/protocol.ts';
import type { MatmulRow } from '../sections/matmul.ts';
import type { StartupResult } from '../sections/startup.ts';
import type { TrainingResult } from '../sections/training.ts';

export interface Results {
  readonly name: string;
  readonly command: string;
  readonly machine: MachineFacts;
  /** What each contestant says of itself. */
  readonly software: Partial<{ [E in EnvironmentName]: Readonly<Record<string, string>> }>;
  /** Contestants that could not take part at all. */
  readonly absent: { readonly environment: EnvironmentName; readonly reason: string }[];
  readonly retune: string;
  readonly threads: number;
  readonly rounds: number;
  readonly maxOtherCores: number;
  readonly quick: boolean;
  /** Whole run. */
  minutes: number;
  readonly training: TrainingResult[];
  matmul: readonly MatmulRow[];
  ops: AnswerOf<'ops'> | undefined;
  startup: readonly StartupResult[];
}

/** What a recipe is given besides its config, and what it gives back. */

export interface RecipeIo {
  /** A line for people. */
  log(line: string): void;
  /** Whether to show progress. */
  readonly progress: boolean;
}

export interface RunOutcome {
  /** Steps done, those before a resume included. */
  readonly steps: number;
  /** Of the last step. */
  readonly loss: number;
  readonly validationLoss: number | undefined;
  readonly outputDir: string;
  /** 0, or that of the signal that ended the run early. */
  readonly exitCode: number;
}

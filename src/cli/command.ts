/** What a file under commands/ exports: one subcommand. Everything heavy is imported inside `run`. */

import { RetuneError } from '../core/errors.ts';

export interface CliArgument {
  /** `<name>` for one that must be given, `[name]` for one that may, `[name...]` for any number. */
  readonly spec: string;
  readonly doc: string;
}

export interface CliOption {
  /** As commander reads it: `-c, --config <file>`. */
  readonly flags: string;
  readonly doc: string;
  /** Turns the text into the value; throws CliUsageError when it cannot. */
  readonly parse?: (text: string) => unknown;
}

export interface CliExample {
  readonly command: string;
  readonly doc: string;
}

export interface CliCommand {
  readonly name: string;
  readonly summary: string;
  readonly arguments: readonly CliArgument[];
  readonly options: readonly CliOption[];
  readonly examples: readonly CliExample[];
  /** Text for the end of the help, made for this command line; '' for none. */
  details?(argv: readonly string[]): Promise<string>;
  /** `args` as in `arguments`, one list at the end for a `...`. Returns the exit code. */
  run(
    args: readonly (string | readonly string[] | undefined)[],
    options: CliValues,
  ): Promise<number>;
}

/** Option values by their long name in camel case. */
export type CliValues = Readonly<Record<string, unknown>>;

/** A command line that cannot be meant: the usage is shown with it. */
export class CliUsageError extends RetuneError {
  constructor(message: string) {
    super('usage', message);
  }
}

/** Parsers for option values. */
export function numberOption(name: string, legal: string, isLegal: (value: number) => boolean) {
  return (text: string): number => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (isLegal(value)) return value;
    throw new CliUsageError(`--${name} must be ${legal} (got '${text}')`);
  };
}

/** A text argument. */
export function textOf(value: string | readonly string[] | undefined): string {
  return typeof value === 'string' ? value : '';
}

/** A `...` argument. */
export function listOf(value: string | readonly string[] | undefined): readonly string[] {
  if (value === undefined) return [];
  return typeof value === 'string' ? [value] : value;
}

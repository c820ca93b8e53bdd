/**
 * The command line. Subcommands are plain objects (commands/*.ts); this file turns them into commander's
 * and turns errors into messages: an error of Retune's is one paragraph, a bug keeps its stack.
 */

import { readFileSync } from 'node:fs';
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { RetuneError } from '../core/errors.ts';
import { type CliCommand, type CliOption, CliUsageError } from './command.ts';
import { cp } from './commands/cp.ts';
import { explain as explainCommand } from './commands/explain.ts';
import { frontier } from './commands/frontier.ts';
import { generate } from './commands/generate.ts';
import { info } from './commands/info.ts';
import { ls } from './commands/ls.ts';
import { planGraph } from './commands/plan-graph.ts';
import { run } from './commands/run.ts';
import { validate } from './commands/validate.ts';

export const commands: readonly CliCommand[] = [
  run,
  ls,
  cp,
  validate,
  explainCommand,
  frontier,
  generate,
  planGraph,
  info,
];

const examples = [
  ['retune run quickstart', 'train a small model now'],
  ['retune ls', 'which recipes and configs there are'],
  ['retune cp pretrain/byte_llama my.yaml', 'a config to change'],
  ['retune run pretrain --config my.yaml max_steps=200', 'run it, with one key changed'],
  ['retune generate --model runs/byte_llama/model --prompt "Once"', 'continue a text'],
] as const;

/** Runs `retune <argv>`; the exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  const outcome = { code: 0 };
  // A reader that stops early (`retune --help | head`) ends the command, and is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    process.exit(error.code === 'EPIPE' ? 0 : 1);
  });
  try {
    const program = await buildProgram(argv, outcome);
    await program.parseAsync([...argv], { from: 'user' });
    return outcome.code;
  } catch (error) {
    return explain(error);
  }
}

/** The commander program; running a subcommand leaves its exit code in `outcome`. */
export async function buildProgram(
  argv: readonly string[],
  outcome: { code: number },
): Promise<Command> {
  const program = new Command('retune')
    .description('Trains and fine-tunes transformer language models inside a memory budget.')
    .version(version(), '-V, --version', 'show the version')
    .helpOption('-h, --help', 'show this help')
    .helpCommand(false)
    .addHelpText(
      'after',
      `\n${formatExamples(examples)}\n\nEvery command explains itself: retune <command> --help`,
    )
    .showSuggestionAfterError(true)
    .exitOverride();
  for (const command of commands) {
    const wanted = argv.find((word) => !word.startsWith('-')) === command.name;
    const details = wanted ? await command.details?.(argv) : undefined;
    program.addCommand(toCommander(command, outcome, details ?? ''));
  }
  if (argv.length === 0) program.outputHelp();
  return program;
}

function toCommander(spec: CliCommand, outcome: { code: number }, details: string): Command {
  const command = new Command(spec.name)
    .description(`${capitalized(spec.summary)}.`)
    .summary(spec.summary)
    .helpOption('-h, --help', 'show this help')
    .showSuggestionAfterError(true)
    .exitOverride();
  for (const argument of spec.arguments) command.argument(argument.spec, argument.doc);
  for (const option of spec.options) addOption(command, option);
  const lines = spec.examples.map((example) => [example.command, example.doc] as const);
  command.addHelpText(
    'after',
    `\n${formatExamples(lines)}${details === '' ? '' : `\n\n${details}`}`,
  );
  command.action(async (...given: unknown[]) => {
    const args = given.slice(0, spec.arguments.length);
    outcome.code = await spec.run(
      args as readonly (string | readonly string[] | undefined)[],
      command.opts(),
    );
  });
  return command;
}

function addOption(command: Command, { flags, doc, parse }: CliOption): void {
  if (!parse) {
    command.option(flags, doc);
    return;
  }
  command.option(flags, doc, (text: string) => {
    try {
      return parse(text);
    } catch (error) {
      if (error instanceof CliUsageError) throw new InvalidArgumentError(`${error.message}.`);
      throw error;
    }
  });
}

function explain(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode;
  if (error instanceof CliUsageError) {
    console.error(`retune: ${error.message}`);
    return 2;
  }
  if (error instanceof RetuneError && error.code !== 'internal') {
    console.error(`retune: ${error.message}`);
    return 1;
  }
  console.error(error);
  return 1;
}

function formatExamples(list: readonly (readonly [string, string])[]): string {
  const lines = list.map(([command, doc]) => `  ${command}\n      ${doc}`);
  return `Examples:\n${lines.join('\n')}`;
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function version(): string {
  const manifest: unknown = JSON.parse(
    readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
  );
  const found = typeof manifest === 'object' && manifest !== null && 'version' in manifest;
  return found ? String(manifest.version) : 'unknown';
}

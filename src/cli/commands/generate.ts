/** `retune generate`: continues a text with a model. */

import type { CliCommand } from '../command.ts';
import { CliUsageError, numberOption } from '../command.ts';

const wholeNumber = (value: number): boolean => Number.isInteger(value) && value >= 1;

export const generate: CliCommand = {
  name: 'generate',
  summary: 'continue a text with a trained model',
  arguments: [],
  options: [
    { flags: '-m, --model <folder>', doc: 'a model in Hugging Face format, with its tokenizer' },
    { flags: '-p, --prompt <text>', doc: "the text to continue; '-' reads it from stdin" },
    {
      flags: '-n, --max-new-tokens <count>',
      doc: 'stop after this many tokens (default: 128)',
      parse: numberOption('max-new-tokens', 'a whole number of at least 1', wholeNumber),
    },
    {
      flags: '-t, --temperature <value>',
      doc: '0 takes the likeliest token; higher is more random (default: 1)',
      parse: numberOption('temperature', 'a number of at least 0', (value) => value >= 0),
    },
    {
      flags: '-k, --top-k <count>',
      doc: 'choose among this many likeliest tokens (default: all)',
      parse: numberOption('top-k', 'a whole number of at least 1', wholeNumber),
    },
    {
      flags: '--top-p <share>',
      doc: 'choose among the likeliest tokens that together have this probability (default: 1)',
      parse: numberOption(
        'top-p',
        'a number above 0 and at most 1',
        (value) => value > 0 && value <= 1,
      ),
    },
    {
      flags: '-s, --seed <number>',
      doc: 'the same seed gives the same text (default: 0)',
      parse: numberOption(
        'seed',
        'a whole number of at least 0',
        (value) => Number.isSafeInteger(value) && value >= 0,
      ),
    },
  ],
  examples: [
    {
      command: 'retune generate --model runs/quickstart/model --prompt "interface "',
      doc: 'text appears as it is made',
    },
    {
      command: 'retune generate -m models/SmolLM2-135M -p "Once upon a time" -t 0.8 --top-p 0.95',
      doc: 'any model in Hugging Face format of a supported family',
    },
  ],
  run: async (_, options) => {
    const { model, prompt } = options;
    if (typeof model !== 'string') {
      throw new CliUsageError('generate: --model is missing. Name a folder with a model in it.');
    }
    if (typeof prompt !== 'string') {
      throw new CliUsageError("generate: --prompt is missing. Give a text, or '-' for stdin.");
    }
    const { generateText } = await import('../../recipes/generate-text.ts');
    const text = prompt === '-' ? await readStdin() : prompt;
    process.stdout.write(text);
    await generateText(model, text, {
      ...numberFields(options),
      onText: (piece) => {
        process.stdout.write(piece);
      },
    });
    process.stdout.write('\n');
    return 0;
  },
};

function numberFields(options: Readonly<Record<string, unknown>>): Record<string, number> {
  const fields: Record<string, number> = {};
  for (const name of ['maxNewTokens', 'temperature', 'topK', 'topP', 'seed']) {
    const value = options[name];
    if (typeof value === 'number') fields[name] = value;
  }
  return fields;
}

async function readStdin(): Promise<string> {
  let text = '';
  process.stdin.setEncoding('utf8');
  for await (const chunk of process.stdin) text += chunk;
  return text;
}

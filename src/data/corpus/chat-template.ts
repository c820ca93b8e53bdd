/**
 * How a conversation becomes text: a list of pieces, each either given to the model (prompt) or learned
 * by it (what the assistant writes, with the token that ends its turn).
 */

import { ArgumentError, nearest } from '../../core/errors.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { Conversation, Role } from './conversation.ts';

export interface Piece {
  /** Special tokens are written out; the tokenizer turns them into ids. */
  readonly text: string;
  /** Whether the tokens of this piece are targets. */
  readonly learned: boolean;
  /** End with the tokenizer's eos token. */
  readonly eos?: boolean;
}

export interface ChatTemplate {
  readonly name: string;
  /** Tokens the vocabulary must have. */
  readonly tokens: readonly string[];
  /** The pieces of a conversation, without a bos token. */
  render(conversation: Conversation): Piece[];
  /** What is put before the answer when generating one. */
  readonly answerPrefix: string;
}

/** Contents one after the other, with nothing between; every answer ends with eos. */
const plain: ChatTemplate = {
  name: 'plain',
  tokens: [],
  answerPrefix: '',
  render: (conversation) =>
    conversation.map(({ role, content }) => {
      const learned = role === 'assistant';
      return { text: content, learned, eos: learned };
    }),
};

/** Headings in plain text, for models without special tokens (Stanford Alpaca's layout). */
const alpaca: ChatTemplate = {
  name: 'alpaca',
  tokens: [],
  answerPrefix: '### Response:\n',
  render: (conversation) =>
    conversation.flatMap(({ role, content }): Piece[] => {
      if (role === 'system') return [{ text: `${content}\n\n`, learned: false }];
      if (role === 'user') return [{ text: `### Instruction:\n${content}\n\n`, learned: false }];
      return [
        { text: '### Response:\n', learned: false },
        { text: content, learned: true, eos: true },
      ];
    }),
};

/** `<|im_start|>role ... <|im_end|>`: Qwen, SmolLM2-Instruct and others. */
const chatml: ChatTemplate = turns('chatml', {
  tokens: ['<|im_start|>', '<|im_end|>'],
  open: (role) => `<|im_start|>${role}\n`,
  close: '<|im_end|>',
  after: '\n',
});

/** Llama 3's headers. */
const llama3: ChatTemplate = turns('llama3', {
  tokens: ['<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'],
  open: (role) => `<|start_header_id|>${role}<|end_header_id|>\n\n`,
  close: '<|eot_id|>',
  after: '',
});

export const chatTemplates: readonly ChatTemplate[] = [plain, alpaca, chatml, llama3];

/**
 * The template called `name`. With a tokenizer, also checks that its vocabulary has the template's
 * tokens. Throws ArgumentError.
 */
export function chatTemplate(name: string, tokenizer?: Tokenizer): ChatTemplate {
  const template = chatTemplates.find((each) => each.name === name);
  if (template === undefined) {
    const names = chatTemplates.map((each) => each.name);
    throw new ArgumentError(
      `chatTemplate: there is no such template (got '${name}'). Use ${nearest(name, names, names.length).join(', ')}.`,
      { name },
    );
  }
  const missing = template.tokens.find((token) => tokenizer?.tokenToId(token) === undefined);
  if (tokenizer !== undefined && missing !== undefined) {
    throw new ArgumentError(
      `chatTemplate: the tokenizer lacks a token of template ${name} (got no '${missing}'). ` +
        "Use the tokenizer of a model trained with it, or the template 'alpaca'.",
      { name, token: missing },
    );
  }
  return template;
}

interface TurnMarks {
  readonly tokens: readonly string[];
  readonly open: (role: Role) => string;
  readonly close: string;
  readonly after: string;
}

function turns(name: string, { tokens, open, close, after }: TurnMarks): ChatTemplate {
  return {
    name,
    tokens,
    answerPrefix: open('assistant'),
    render: (conversation) =>
      conversation.flatMap(({ role, content }): Piece[] => {
        if (role !== 'assistant') {
          return [{ text: `${open(role)}${content}${close}${after}`, learned: false }];
        }
        const pieces: Piece[] = [
          { text: open(role), learned: false },
          { text: `${content}${close}`, learned: true },
        ];
        return after === '' ? pieces : [...pieces, { text: after, learned: false }];
      }),
  };
}

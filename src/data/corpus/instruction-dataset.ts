/**
 * Conversations as rows for supervised fine-tuning: only what the assistant writes is a target. Each
 * row holds one example, padded, or as many as fit (`pack`), kept apart by segment and position ids.
 */

import { createHash } from 'node:crypto';
import { ArgumentError } from '../../core/errors.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { ChatTemplate } from './chat-template.ts';
import type { Conversation } from './conversation.ts';
import {
  ignoreIndex,
  paddingSegment,
  type SequenceDataset,
  type SequenceRow,
} from './sequence-dataset.ts';

export interface InstructionOptions {
  /** S, the number of inputs in a row. Longer examples are cut at the end. */
  readonly sequenceLength: number;
  readonly template: ChatTemplate;
  /** Put several examples into a row (default false). */
  readonly pack?: boolean;
  /** Learn the prompts too (torchtune's train_on_input; default false). */
  readonly trainOnInput?: boolean;
  /** Token for padding; its targets are ignored (default: eos, else 0). */
  readonly padId?: number;
}

/** A conversation as tokens. */
export interface TokenizedExample {
  readonly tokens: Int32Array;
  /** 1 where a token is to be learned. */
  readonly learned: Uint8Array;
}

/** The tokens of one conversation under a template, with bos in front when the tokenizer has one. */
export function tokenizeConversation(
  conversation: Conversation,
  tokenizer: Tokenizer,
  template: ChatTemplate,
  trainOnInput = false,
): TokenizedExample {
  const tokens: number[] = [];
  const learned: number[] = [];
  if (tokenizer.bosId !== undefined) {
    tokens.push(tokenizer.bosId);
    learned.push(0);
  }
  for (const piece of template.render(conversation)) {
    const ids = [...tokenizer.encode(piece.text, { addSpecial: false })];
    if (piece.eos === true && tokenizer.eosId !== undefined) ids.push(tokenizer.eosId);
    for (const id of ids) {
      tokens.push(id);
      learned.push(piece.learned || trainOnInput ? 1 : 0);
    }
  }
  return { tokens: Int32Array.from(tokens), learned: Uint8Array.from(learned) };
}

export class InstructionDataset implements SequenceDataset {
  readonly length: number;
  readonly sequenceLength: number;
  readonly fingerprint: string;
  /** Conversations left out because nothing of an answer fits the row. */
  readonly skipped: number;
  /** Conversations that were cut at the end of the row. */
  readonly truncated: number;
  readonly #rows: readonly (readonly TokenizedExample[])[];
  readonly #padId: number;

  /** Throws ArgumentError when no conversation has an answer that fits. */
  constructor(
    conversations: Iterable<Conversation>,
    tokenizer: Tokenizer,
    options: InstructionOptions,
  ) {
    const { sequenceLength, template, pack = false, trainOnInput = false } = options;
    if (!Number.isInteger(sequenceLength) || sequenceLength < 1) {
      throw new ArgumentError(
        `InstructionDataset: sequenceLength must be a positive integer (got ${sequenceLength}). Use what the model takes.`,
        { sequenceLength },
      );
    }
    this.sequenceLength = sequenceLength;
    this.#padId = options.padId ?? tokenizer.eosId ?? 0;
    const examples: TokenizedExample[] = [];
    const hash = createHash('sha256');
    let skipped = 0;
    let truncated = 0;
    for (const conversation of conversations) {
      const whole = tokenizeConversation(conversation, tokenizer, template, trainOnInput);
      // S inputs have S targets, which come from S + 1 tokens.
      const tokens = whole.tokens.subarray(0, sequenceLength + 1);
      const learned = whole.learned.subarray(0, sequenceLength + 1);
      if (!learned.includes(1, 1)) {
        skipped++;
        continue;
      }
      if (tokens.length < whole.tokens.length) truncated++;
      hash.update(`${tokens.length}:`).update(Uint8Array.from(learned));
      hash.update(new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength));
      examples.push({ tokens, learned });
    }
    if (examples.length === 0) {
      throw new ArgumentError(
        `InstructionDataset: no conversation has an answer within ${sequenceLength} tokens (got ${skipped} conversations). ` +
          'Use a longer sequenceLength or check the data.',
        { skipped },
      );
    }
    this.skipped = skipped;
    this.truncated = truncated;
    this.#rows = pack ? packRows(examples, sequenceLength) : examples.map((example) => [example]);
    this.length = this.#rows.length;
    const digest = hash.digest('hex').slice(0, 32);
    this.fingerprint = `${digest}/instructions-${sequenceLength}-${pack}-${this.#padId}`;
  }

  async fill(index: number, row: SequenceRow): Promise<void> {
    const { inputs, targets, segmentIds, positionIds } = row;
    inputs.fill(this.#padId);
    targets.fill(ignoreIndex);
    segmentIds.fill(paddingSegment);
    positionIds.fill(0);
    let at = 0;
    for (const [segment, { tokens, learned }] of (this.#rows[index] ?? []).entries()) {
      for (let i = 0; i + 1 < tokens.length; i++, at++) {
        inputs[at] = tokens[i] ?? 0;
        if (learned[i + 1] === 1) targets[at] = tokens[i + 1] ?? 0;
        segmentIds[at] = segment;
        positionIds[at] = i;
      }
    }
  }
}

/**
 * Examples to rows, each to the first row with room (first fit), in order. A segment tree over the room
 * left finds that row in logarithmic time.
 */
function packRows(examples: readonly TokenizedExample[], room: number): TokenizedExample[][] {
  const rows: TokenizedExample[][] = [];
  const leaves = 2 ** Math.ceil(Math.log2(Math.max(2, examples.length)));
  // Node n has children 2n and 2n + 1; each holds the most room of any row under it.
  const most = new Int32Array(2 * leaves).fill(room);
  for (const example of examples) {
    const need = example.tokens.length - 1;
    let node = 1;
    while (node < leaves) node = (most[2 * node] ?? 0) >= need ? 2 * node : 2 * node + 1;
    const row = node - leaves;
    const list = rows[row] ?? [];
    list.push(example);
    rows[row] = list;
    most[node] = (most[node] ?? 0) - need;
    for (node >>= 1; node >= 1; node >>= 1) {
      most[node] = Math.max(most[2 * node] ?? 0, most[2 * node + 1] ?? 0);
    }
  }
  return rows;
}

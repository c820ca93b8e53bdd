import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { ByteTokenizer } from '../tokenizer/byte-tokenizer.ts';
import { readBatch } from './batches.ts';
import { chatTemplate, chatTemplates } from './chat-template.ts';
import { type Conversation, parseConversations, readConversations } from './conversation.ts';
import { InstructionDataset, tokenizeConversation } from './instruction-dataset.ts';
import { ignoreIndex, paddingSegment } from './sequence-dataset.ts';

let root = '';
before(async () => {
  root = await mkdtemp(join(tmpdir(), 'retune-sft-'));
});
after(() => rm(root, { recursive: true, force: true }));

const allTokens = chatTemplates.flatMap((template) => template.tokens);
const tokenizer = new ByteTokenizer({ specials: ['</s>', '<s>', ...allTokens], eos: '</s>' });
const ask = (prompt: string, answer: string): Conversation => [
  { role: 'user', content: prompt },
  { role: 'assistant', content: answer },
];

describe('parseConversations', () => {
  test('reads the three shapes and skips blank lines', () => {
    const text = [
      '{"messages":[{"role":"system","content":"s"},{"role":"assistant","content":"a"}]}',
      '',
      '{"prompt":"p","completion":"c"}',
      '{"instruction":"do","input":"this","output":"done"}',
      '{"instruction":"do","output":"done"}\r',
    ].join('\n');
    assert.deepEqual(parseConversations(text), [
      [
        { role: 'system', content: 's' },
        { role: 'assistant', content: 'a' },
      ],
      ask('p', 'c'),
      ask('do\n\nthis', 'done'),
      ask('do', 'done'),
    ]);
  });

  const bad: [string, RegExp][] = [
    ['{', /line 2: it is not JSON/],
    ['[]', /line 2: it is no object/],
    ['{"text":"x"}', /line 2: its shape is unknown \(got keys text\)/],
    ['{"prompt":"p"}', /'completion' is no string \(got nothing\)/],
    ['{"messages":[]}', /messages is no list/],
    ['{"messages":[{"role":"tool","content":""}]}', /message 0 has an unknown role \(got "tool"/],
    ['{"messages":[{"role":"user","content":"x"}]}', /no message is by the assistant/],
  ];
  for (const [line, message] of bad) {
    test(`refuses ${line}`, () => {
      const text = `{"prompt":"p","completion":"c"}\n${line}`;
      assert.throws(() => parseConversations(text, 'f.jsonl'), { name: 'FileError', message });
    });
  }

  test('reads a file, and names one that is missing, empty or no text', async () => {
    const path = join(root, 'data.jsonl');
    await writeFile(path, '{"prompt":"p","completion":"c"}\n');
    assert.deepEqual(await readConversations(path), [ask('p', 'c')]);
    await writeFile(path, '\n');
    await assert.rejects(readConversations(path), /has no rows/);
    await writeFile(path, Buffer.from([0xff]));
    await assert.rejects(readConversations(path), /is not UTF-8/);
    await assert.rejects(readConversations(join(root, 'no')), /does not exist/);
  });
});

describe('chat templates', () => {
  const conversation: Conversation = [{ role: 'system', content: 'S' }, ...ask('U', 'A')];
  const written = (name: string) => {
    const { tokens, learned } = tokenizeConversation(conversation, tokenizer, chatTemplate(name));
    const text = (only: number) =>
      tokenizer.decode(
        tokens.filter((_, i) => learned[i] === only),
        { skipSpecial: false },
      );
    return { all: tokenizer.decode(tokens, { skipSpecial: false }), learned: text(1) };
  };

  test('render as their models expect, and learn only answers and their end', () => {
    assert.deepEqual(written('plain'), { all: 'SUA</s>', learned: 'A</s>' });
    assert.deepEqual(written('alpaca'), {
      all: 'S\n\n### Instruction:\nU\n\n### Response:\nA</s>',
      learned: 'A</s>',
    });
    assert.deepEqual(written('chatml'), {
      all: '<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n',
      learned: 'A<|im_end|>',
    });
    assert.deepEqual(written('llama3'), {
      all:
        '<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>' +
        '<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>' +
        '<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>',
      learned: 'A<|eot_id|>',
    });
  });

  test('end a prompt with what stands before an answer', () => {
    for (const template of chatTemplates) {
      const pieces = template.render(ask('U', 'A'));
      const at = pieces.findIndex((piece) => piece.learned);
      const prompt = pieces
        .slice(0, at)
        .map((piece) => piece.text)
        .join('');
      assert.ok(prompt.endsWith(template.answerPrefix), template.name);
    }
  });

  test('put bos in front when the tokenizer has one, and learn prompts on demand', () => {
    const withBos = new ByteTokenizer({ specials: ['<s>'], bos: '<s>' });
    const example = tokenizeConversation(ask('U', 'A'), withBos, chatTemplate('plain'));
    assert.deepEqual([...example.tokens], [256, 85, 65]);
    assert.deepEqual([...example.learned], [0, 0, 1]);
    const all = tokenizeConversation(ask('U', 'A'), withBos, chatTemplate('plain'), true);
    assert.deepEqual([...all.learned], [0, 1, 1]);
  });

  test('are refused by name, or when the vocabulary lacks their tokens', () => {
    assert.throws(() => chatTemplate('chatlm'), /got 'chatlm'\)\. Use chatml,/);
    assert.throws(
      () => chatTemplate('chatml', new ByteTokenizer()),
      /lacks a token of template chatml \(got no '<\|im_start\|>'\)/,
    );
    assert.equal(chatTemplate('chatml', tokenizer).name, 'chatml');
  });
});

describe('InstructionDataset', () => {
  const template = chatTemplate('plain');

  test('targets only the answer, shifted by one, and pads', async () => {
    const dataset = new InstructionDataset([ask('ab', 'c')], tokenizer, {
      sequenceLength: 5,
      template,
    });
    const eos = tokenizer.eosId ?? -1;
    const batch = await readBatch(dataset, [0]);
    assert.deepEqual([...batch.inputs], [97, 98, 99, eos, eos]);
    assert.deepEqual([...batch.targets], [ignoreIndex, 99, eos, ignoreIndex, ignoreIndex]);
    assert.deepEqual([...batch.segmentIds], [0, 0, 0, paddingSegment, paddingSegment]);
    assert.deepEqual([...batch.positionIds], [0, 1, 2, 0, 0]);
    assert.equal(batch.targetCount, 2);
  });

  test('cuts long examples, and leaves out those without room for an answer', () => {
    const conversations = [ask('ab', 'cdefgh'), ask('abcdef', 'g'), ask('a', 'b')];
    const dataset = new InstructionDataset(conversations, tokenizer, {
      sequenceLength: 4,
      template,
    });
    assert.deepEqual([dataset.length, dataset.skipped, dataset.truncated], [2, 1, 1]);
    assert.throws(
      () =>
        new InstructionDataset([ask('abcdef', 'g')], tokenizer, { sequenceLength: 4, template }),
      /no conversation has an answer within 4 tokens \(got 1 conversations\)/,
    );
  });

  test('packs every example whole, once, into rows that hold it', async () => {
    const text = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 6 });
    const conversations = fc.array(fc.tuple(text, text), { minLength: 1, maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(
        conversations,
        fc.integer({ min: 13, max: 40 }),
        async (pairs, sequenceLength) => {
          const all = pairs.map(([prompt, answer]) => ask(prompt, answer));
          const dataset = new InstructionDataset(all, tokenizer, {
            sequenceLength,
            template,
            pack: true,
          });
          const found: string[] = [];
          for (let r = 0; r < dataset.length; r++) {
            const row = await readBatch(dataset, [r]);
            for (let segment = 0; row.segmentIds.includes(segment); segment++) {
              const places = [...row.inputs.keys()].filter((i) => row.segmentIds[i] === segment);
              places.forEach((place, i) => assert.equal(row.positionIds[place], i));
              const inputs = tokenizer.decode(places.map((i) => row.inputs[i] ?? 0));
              const targets = places
                .map((i) => row.targets[i] ?? 0)
                .filter((t) => t !== ignoreIndex);
              found.push(`${inputs}>${tokenizer.decode(targets, { skipSpecial: false })}`);
            }
          }
          const wanted = pairs.map(([prompt, answer]) => `${prompt}${answer}>${answer}</s>`);
          assert.deepEqual(found.sort(), wanted.sort());
          assert.ok(dataset.length <= wanted.length);
        },
      ),
      { numRuns: 50 },
    );
  });

  test('packs tightly, first fit', () => {
    // Lengths in inputs: 6, 3, 4, 3 into rows of 9: [6, 3], [4, 3].
    const all = [ask('aaa', 'bbb'), ask('a', 'bb'), ask('aa', 'bb'), ask('a', 'bb')];
    const dataset = new InstructionDataset(all, tokenizer, {
      sequenceLength: 9,
      template,
      pack: true,
    });
    assert.equal(dataset.length, 2);
  });

  test('has a fingerprint of its rows', () => {
    const make = (conversations: Conversation[], sequenceLength: number, pack: boolean) =>
      new InstructionDataset(conversations, tokenizer, { sequenceLength, template, pack })
        .fingerprint;
    const one = [ask('a', 'b')];
    const prints = [
      make(one, 9, false),
      make(one, 9, true),
      make(one, 8, false),
      make([ask('ab', 'c')], 9, false),
      make([ask('a', 'bc')], 9, false),
    ];
    assert.equal(new Set(prints).size, prints.length);
    assert.equal(make(one, 9, false), prints[0]);
  });
});

/**
 * Conversations for supervised fine-tuning, read from JSONL: one JSON object per line, in any of the
 * shapes { messages: [{ role, content }] }, { prompt, completion } or { instruction, input?, output }.
 */

import { readFile } from 'node:fs/promises';
import { FileError } from '../../core/errors.ts';
import { fileErrorFrom } from '../../core/file-error.ts';

export type Role = 'system' | 'user' | 'assistant';

export interface Message {
  readonly role: Role;
  readonly content: string;
}

export type Conversation = readonly Message[];

/** All conversations of a JSONL file; blank lines are skipped. Throws FileError naming the line. */
export async function readConversations(path: string): Promise<Conversation[]> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw fileErrorFrom('readConversations', path, cause);
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new FileError(
      `readConversations: ${path} is not UTF-8 text (got ${bytes.byteLength} bytes). Convert it.`,
      { path },
      cause,
    );
  }
  return parseConversations(text, path);
}

/** The conversations in JSONL `text`; `path` is its name in errors. Throws FileError. */
export function parseConversations(text: string, path = 'JSONL'): Conversation[] {
  const out: Conversation[] = [];
  for (const [i, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    const fail = (what: string): FileError =>
      new FileError(
        `readConversations: ${path}, line ${i + 1}: ${what}. ` +
          'Give { messages }, { prompt, completion } or { instruction, input?, output } on each line.',
        { path, line: i + 1 },
      );
    let row: unknown;
    try {
      row = JSON.parse(line);
    } catch (cause) {
      throw fail(`it is not JSON (got: ${cause instanceof Error ? cause.message : cause})`);
    }
    out.push(parseRow(row, fail));
  }
  if (out.length > 0) return out;
  throw new FileError(`readConversations: ${path} has no rows (got 0). Check the file.`, { path });
}

type Fail = (what: string) => FileError;

function parseRow(row: unknown, fail: Fail): Conversation {
  if (!isRecord(row)) throw fail(`it is no object (got ${JSON.stringify(row)})`);
  if ('messages' in row) return parseMessages(row.messages, fail);
  if ('prompt' in row) {
    return [
      { role: 'user', content: textField(row, 'prompt', fail) },
      { role: 'assistant', content: textField(row, 'completion', fail) },
    ];
  }
  if ('instruction' in row) {
    const input = 'input' in row ? textField(row, 'input', fail) : '';
    const instruction = textField(row, 'instruction', fail);
    return [
      { role: 'user', content: input === '' ? instruction : `${instruction}\n\n${input}` },
      { role: 'assistant', content: textField(row, 'output', fail) },
    ];
  }
  throw fail(`its shape is unknown (got keys ${Object.keys(row).join(', ') || 'none'})`);
}

function parseMessages(value: unknown, fail: Fail): Conversation {
  if (!Array.isArray(value) || value.length === 0) throw fail('messages is no list of messages');
  const messages = value.map((message: unknown, i): Message => {
    if (!isRecord(message)) throw fail(`message ${i} is no object`);
    const role = message.role;
    if (role !== 'system' && role !== 'user' && role !== 'assistant') {
      throw fail(
        `message ${i} has an unknown role (got ${JSON.stringify(role)}, known are system, user, assistant)`,
      );
    }
    return { role, content: textField(message, 'content', fail) };
  });
  if (messages.some((message) => message.role === 'assistant')) return messages;
  throw fail('no message is by the assistant, so there is nothing to learn');
}

function textField(row: Record<string, unknown>, key: string, fail: Fail): string {
  const value = row[key];
  if (typeof value === 'string') return value;
  throw fail(`'${key}' is no string (got ${JSON.stringify(value) ?? 'nothing'})`);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

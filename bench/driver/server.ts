/**
 * A contestant's process, seen from the driver. Requests are answered one at a time; a process that
 * ends, or that does not answer in time, makes the open request fail.
 */

import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import {
  type AnswerOf,
  type Command,
  type Reply,
  type RequestOf,
  recordSeparator,
} from './protocol.ts';

export interface ServerCommand {
  readonly program: string;
  readonly args: readonly string[];
  /** Added to this process's environment. */
  readonly env: Readonly<Record<string, string>>;
}

/** A contestant could not do what it was asked. */
export class ContestantError extends Error {}

/** Minutes after which a request has failed. Compiling a deep model can take PyTorch many. */
const patience = { start: 30, others: 10 };
/** Of what the server wrote to standard error, for the message when it dies. */
const keptLines = 12;

export class Server implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #said: string[] = [];
  readonly #ended: Promise<void>;
  #open: { resolve(line: string): void; reject(error: Error): void } | undefined;
  #down: string | undefined;

  constructor({ program, args, env }: ServerCommand) {
    this.#child = spawn(program, [...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    this.#ended = new Promise((resolve) => {
      this.#child.once('error', (error) => {
        this.#fail(error.message);
        resolve();
      });
      this.#child.once('close', (code, signal) => {
        this.#fail(`the process ended with ${signal ?? `exit code ${code}`}`);
        resolve();
      });
    });
    // A server that died is reported by its exit, not by the broken pipe.
    this.#child.stdin.on('error', () => {});
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      const at = line.indexOf(recordSeparator);
      if (at >= 0) this.#open?.resolve(line.slice(at + 1));
    });
    createInterface({ input: this.#child.stderr }).on('line', (line) => {
      this.#said.push(line);
      if (this.#said.length > keptLines) this.#said.shift();
    });
  }

  /** Why it answers no more. */
  get down(): string | undefined {
    return this.#down;
  }

  /** Throws ContestantError when the server cannot, or is gone. */
  async ask<C extends Command>(command: C, request: RequestOf<C>): Promise<AnswerOf<C>> {
    if (this.#down !== undefined) throw new ContestantError(this.#down);
    const minutes = command === 'start' ? patience.start : patience.others;
    const line = await new Promise<string>((resolve, reject) => {
      const late = setTimeout(() => {
        this.#fail(`no answer to '${command}' in ${minutes} minutes`);
        this.#child.kill('SIGKILL');
      }, minutes * 60_000);
      const settled =
        <T>(settle: (value: T) => void) =>
        (value: T): void => {
          clearTimeout(late);
          this.#open = undefined;
          settle(value);
        };
      this.#open = { resolve: settled(resolve), reject: settled(reject) };
      this.#child.stdin.write(`${JSON.stringify({ command, ...request })}\n`);
    });
    const reply = parseReply<C>(line);
    if (!reply.ok) throw new ContestantError(withoutFolders(reply.error));
    const { ok: _, ...answer } = reply;
    return answer as unknown as AnswerOf<C>;
  }

  /** Asks the process to leave, and ends it if it does not. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#down === undefined) this.#child.stdin.end('{"command":"quit"}\n');
    const stuck = setTimeout(() => this.#child.kill('SIGKILL'), 5000);
    await this.#ended;
    clearTimeout(stuck);
  }

  #fail(reason: string): void {
    const last = this.#said.filter((line) => line.trim() !== '').at(-1);
    this.#down ??= withoutFolders(last === undefined ? reason : `${reason}: ${last.trim()}`);
    this.#open?.reject(new ContestantError(this.#down));
  }
}

function parseReply<C extends Command>(line: string): Reply<C> {
  try {
    return JSON.parse(line) as Reply<C>;
  } catch {
    throw new ContestantError(`it answered what is not JSON: ${line.slice(0, 100)}`);
  }
}

/** Absolute paths shortened to their last part: reports say nothing of where they were made. */
export function withoutFolders(text: string): string {
  return text.replace(/(?<![\w.\\/])(?:[A-Za-z]:)?[\\/](?:[^\s\\/'"]+[\\/])+/g, '');
}

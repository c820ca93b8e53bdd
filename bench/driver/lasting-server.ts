/**
 * A contestant whose process may die, of too little memory say, without being out of the run: the open
 * request fails, and the next one goes to a new process that has been told what the old one knew.
 */

import type { AnswerOf, Command, RequestOf } from './protocol.ts';
import { ContestantError, Server, type ServerCommand } from './server.ts';

/** So that a process which always dies does not keep the run busy with starting it. */
const mostRestarts = 3;

export class LastingServer implements AsyncDisposable {
  readonly #command: ServerCommand;
  readonly #prepare: (server: Server) => Promise<void>;
  #server: Server | undefined;
  #starts = 0;

  /** `prepare` is called with each new process before it is asked anything else. */
  constructor(command: ServerCommand, prepare: (server: Server) => Promise<void>) {
    this.#command = command;
    this.#prepare = prepare;
  }

  /** Throws ContestantError when the server cannot, or dies while it works on this. */
  async ask<C extends Command>(command: C, request: RequestOf<C>): Promise<AnswerOf<C>> {
    return (await this.#running()).ask(command, request);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.[Symbol.asyncDispose]();
  }

  async #running(): Promise<Server> {
    if (this.#server && this.#server.down === undefined) return this.#server;
    if (this.#starts > mostRestarts) {
      throw new ContestantError(this.#server?.down ?? 'it cannot be started');
    }
    this.#starts++;
    const server = new Server(this.#command);
    try {
      await this.#prepare(server);
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
    this.#server = server;
    return server;
  }
}

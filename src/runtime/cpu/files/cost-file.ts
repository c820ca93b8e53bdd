/**
 * Costs measured on this machine, kept from process to process: one JSON file for each kind of device
 * (processor, threads, matrix multiply) below a cache folder. It only saves time: a file that cannot be
 * read or written, or is not one of ours, is as good as none. What was set is written when the work that
 * is going on ends, together with what other processes have written meanwhile.
 */

import { readEnv } from '../../../core/env.ts';
import type { CostCache } from '../../cost-cache.ts';
import { nodeModule } from '../platform.ts';

/** Raised when equal descriptions come to mean other work: generated code, or how it is timed, changed. */
const format = 1;

export class CostFile implements CostCache {
  readonly #device: () => string;
  readonly #known = new Map<string, number>();
  readonly #fresh = new Map<string, number>();
  #path: string | undefined;
  #isOpen = false;

  /** `device` tells apart devices on which equal work takes unequal time; asked when it is first needed. */
  constructor(device: () => string) {
    this.#device = device;
  }

  get(work: string): number | undefined {
    this.#open();
    return this.#known.get(digest(work));
  }

  set(work: string, ns: number): void {
    this.#open();
    const key = digest(work);
    this.#known.set(key, ns);
    if (this.#path === undefined) return;
    if (this.#fresh.size === 0) queueMicrotask(() => this.#save());
    this.#fresh.set(key, ns);
  }

  #open(): void {
    if (this.#isOpen) return;
    this.#isOpen = true;
    const folder = cacheFolder();
    const path = nodeModule('node:path');
    if (folder === undefined || path === undefined) return;
    this.#path = path.join(folder, `costs-${digest(`${format} ${this.#device()}`)}.json`);
    for (const [key, ns] of readCosts(this.#path)) this.#known.set(key, ns);
  }

  #save(): void {
    const [fs, path] = [nodeModule('node:fs'), nodeModule('node:path')];
    const target = this.#path;
    if (!fs || !path || target === undefined) return;
    const costs = new Map([...readCosts(target), ...this.#fresh]);
    this.#fresh.clear();
    const partial = `${target}.${process.pid}`;
    try {
      fs.mkdirSync(path.dirname(target), { recursive: true });
    } catch {
      this.#path = undefined;
      return;
    }
    try {
      fs.writeFileSync(partial, JSON.stringify(Object.fromEntries(costs)), { flush: true });
      fs.renameSync(partial, target);
    } catch {
      this.#path = undefined;
      fs.rmSync(partial, { force: true });
    }
  }
}

/** RETUNE_CACHE_DIR, or `.cache/retune` of the user, as PyTorch's cache has it; undefined outside Node. */
function cacheFolder(): string | undefined {
  const [os, path] = [nodeModule('node:os'), nodeModule('node:path')];
  if (!os || !path) return undefined;
  return path.resolve(readEnv('RETUNE_CACHE_DIR') ?? path.join(os.homedir(), '.cache', 'retune'));
}

/** What a file holds; nothing when it is missing or something else. */
function readCosts(file: string): [string, number][] {
  try {
    const json: unknown = JSON.parse(nodeModule('node:fs')?.readFileSync(file, 'utf8') ?? '{}');
    if (typeof json !== 'object' || json === null) return [];
    return Object.entries(json).filter(([, ns]) => Number.isFinite(ns) && ns >= 0);
  } catch {
    return [];
  }
}

/** Descriptions are long; 96 bits of a hash tell them apart. */
function digest(text: string): string {
  const crypto = nodeModule('node:crypto');
  return crypto ? crypto.createHash('sha256').update(text).digest('base64url').slice(0, 16) : text;
}

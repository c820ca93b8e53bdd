/**
 * Reading a Hugging Face config.json field by field. A value that Retune cannot follow exactly is an
 * error that names the field, the value and what is supported: nothing is silently left out.
 */

import { ConfigError } from '../../core/errors.ts';

/** A parsed config.json. */
export type RawConfig = Readonly<Record<string, unknown>>;

export class ConfigFields {
  readonly raw: RawConfig;
  /** Prefix of names in errors, for objects inside the configuration. */
  readonly #prefix: string;

  constructor(raw: RawConfig, prefix = '') {
    this.raw = raw;
    this.#prefix = prefix;
  }

  /** Whether the field is there and not null. */
  has(name: string): boolean {
    return this.raw[name] !== undefined && this.raw[name] !== null;
  }

  positiveInteger(name: string, fallback?: number): number {
    const value = this.#value(name, fallback);
    if (Number.isInteger(value) && Number(value) > 0) return Number(value);
    return this.unsupported(name, 'a positive integer');
  }

  /** A number above 0. */
  positive(name: string, fallback?: number): number {
    const value = this.#value(name, fallback);
    if (typeof value === 'number' && value > 0 && Number.isFinite(value)) return value;
    return this.unsupported(name, 'a number above 0');
  }

  boolean(name: string, fallback: boolean): boolean {
    const value = this.#value(name, fallback);
    return typeof value === 'boolean' ? value : this.unsupported(name, 'true or false');
  }

  /** A list of integers; a single one counts as a list. Null and missing are the empty list. */
  integers(name: string): number[] {
    const value = this.raw[name] ?? [];
    const list: unknown[] = Array.isArray(value) ? value : [value];
    if (list.every((entry): entry is number => Number.isInteger(entry))) return list;
    return this.unsupported(name, 'an integer or a list of them');
  }

  /** The object in a field; undefined when missing or null. */
  object(name: string): ConfigFields | undefined {
    const value = this.raw[name] ?? undefined;
    if (value === undefined) return undefined;
    if (typeof value !== 'object' || Array.isArray(value)) this.unsupported(name, 'an object');
    return new ConfigFields(value as RawConfig, `${this.#prefix}${name}.`);
  }

  /** Throws unless the field is missing, null, or one of `supported`. Returns the value. */
  only<T extends string | number | boolean>(name: string, supported: readonly T[]): T | undefined {
    const value = this.raw[name] ?? undefined;
    if (value === undefined || supported.includes(value as T)) return value as T | undefined;
    return this.unsupported(name, supported.map((entry) => JSON.stringify(entry)).join(', '));
  }

  unsupported(name: string, supported: string): never {
    const value = this.raw[name];
    const shown = value === undefined ? 'nothing' : JSON.stringify(value);
    throw new ConfigError(
      `modelFromConfig: '${this.#prefix}${name}' is not supported (got ${shown}). Supported: ${supported}.`,
      { key: `${this.#prefix}${name}`, value, supported },
    );
  }

  #value(name: string, fallback: unknown): unknown {
    return this.raw[name] ?? fallback;
  }
}

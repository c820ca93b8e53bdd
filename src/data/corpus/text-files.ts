/**
 * Text corpora on disk: which files belong, in an order that does not depend on the machine, and their
 * contents as documents, one file at a time.
 */

import { glob, open, readdir, stat } from 'node:fs/promises';
import { join, matchesGlob, relative, resolve, sep } from 'node:path';
import { ArgumentError, FileError } from '../../core/errors.ts';
import { fileErrorFrom, systemCode } from '../../core/file-error.ts';

export interface FindOptions {
  /** Folder that relative patterns start from (default: the current one). */
  readonly cwd?: string;
  /** Endings of the files taken from folders, such as `.md`; names given outright are always taken. */
  readonly extensions?: readonly string[];
  /** Globs, matched against the path from `cwd`, of files to leave out. */
  readonly exclude?: readonly string[];
  /** Take no more than this many, the first in order. */
  readonly maxFiles?: number;
}

export interface DocumentReadOptions {
  readonly cwd?: string;
  /** Files larger than this many bytes are skipped (default: none are). */
  readonly maxFileBytes?: number;
  /** Stop after this many bytes in total; the last document is cut between two characters. */
  readonly maxTotalBytes?: number;
  /** What to do with a file that is no UTF-8 text or holds NUL bytes (default: error). */
  readonly invalid?: 'error' | 'skip';
  /** Told about each file that is left out. */
  readonly onSkip?: (path: string, reason: string) => void;
}

/** A text and where it came from. */
export interface TextDocument {
  readonly path: string;
  readonly text: string;
}

/** Endings that folders are searched for unless told otherwise. */
export const defaultExtensions: readonly string[] = ['.txt', '.md'];

/**
 * The files named by `patterns`: each a file, a folder (searched whole, links to folders not followed)
 * or a glob such as `src/**\/*.ts`. Paths are relative to `cwd` with forward slashes, each once, sorted
 * by code unit. Throws FileError when a pattern matches nothing.
 */
export async function findTextFiles(
  patterns: string | readonly string[],
  options: FindOptions = {},
): Promise<string[]> {
  const cwd = resolve(options.cwd ?? '.');
  const extensions = options.extensions ?? defaultExtensions;
  const exclude = options.exclude ?? [];
  const found = new Set<string>();
  for (const pattern of typeof patterns === 'string' ? [patterns] : patterns) {
    const matches = await matchPattern(pattern, cwd, extensions);
    if (matches.length === 0) {
      throw new FileError(
        `findTextFiles: no file matches (got '${pattern}' in ${cwd}, endings ${extensions.join(' ')}). ` +
          'Check the pattern, or name the endings to take from folders.',
        { path: pattern },
      );
    }
    for (const path of matches) found.add(relative(cwd, path).split(sep).join('/'));
  }
  const kept = [...found].filter((path) => !exclude.some((glob) => matchesGlob(path, glob)));
  return kept.sort(byCodeUnit).slice(0, options.maxFiles ?? kept.length);
}

/**
 * The contents of `paths` in order, as text without a byte order mark; empty files are left out.
 * Throws FileError for a file that cannot be read or, unless `invalid` is 'skip', is no text.
 */
export async function* readDocuments(
  paths: Iterable<string>,
  options: DocumentReadOptions = {},
): AsyncGenerator<TextDocument, void, undefined> {
  const cwd = resolve(options.cwd ?? '.');
  let left = sizeOption('maxTotalBytes', options.maxTotalBytes);
  const maxFileBytes = sizeOption('maxFileBytes', options.maxFileBytes);
  for (const path of paths) {
    if (left <= 0) return;
    const bytes = await readUpTo(resolve(cwd, path), path, maxFileBytes);
    if (bytes === undefined) {
      options.onSkip?.(path, `larger than ${maxFileBytes} bytes`);
      continue;
    }
    const kept = bytes.byteLength > left ? cutAtCharacter(bytes, left) : bytes;
    left -= bytes.byteLength;
    const bad = kept.includes(0) ? 'it holds NUL bytes' : undefined;
    const text = bad === undefined ? decodeUtf8(kept) : undefined;
    if (text === undefined) {
      const reason = bad ?? `byte ${invalidOffset(kept)} is no UTF-8`;
      if (options.invalid === 'skip') {
        left += bytes.byteLength;
        options.onSkip?.(path, reason);
        continue;
      }
      throw new FileError(
        `readDocuments: ${path} is not text (got: ${reason}). Convert it to UTF-8, leave it out, or skip invalid files.`,
        { path },
      );
    }
    if (text !== '') yield { path, text };
  }
}

async function matchPattern(
  pattern: string,
  cwd: string,
  extensions: readonly string[],
): Promise<string[]> {
  const full = resolve(cwd, pattern);
  try {
    const found = await stat(full);
    if (!found.isDirectory()) return [full];
    const entries = await readdir(full, { recursive: true, withFileTypes: true });
    return entries
      .filter((entry) => entry.isFile() && extensions.some((end) => entry.name.endsWith(end)))
      .map((entry) => join(entry.parentPath, entry.name));
  } catch (cause) {
    if (systemCode(cause) !== 'ENOENT') throw fileErrorFrom('findTextFiles', pattern, cause);
  }
  const out: string[] = [];
  for await (const entry of glob(pattern, { cwd, withFileTypes: true })) {
    if (entry.isFile()) out.push(join(entry.parentPath, entry.name));
  }
  return out;
}

/** The whole file, or undefined when it is larger than `limit`. */
async function readUpTo(
  full: string,
  path: string,
  limit: number,
): Promise<Uint8Array | undefined> {
  try {
    await using handle = await open(full, 'r');
    const { size } = await handle.stat();
    return size > limit ? undefined : await handle.readFile();
  } catch (cause) {
    throw fileErrorFrom('readDocuments', path, cause);
  }
}

function sizeOption(name: string, value: number | undefined): number {
  if (value === undefined) return Number.POSITIVE_INFINITY;
  if (value > 0) return value;
  throw new ArgumentError(
    `readDocuments: ${name} must be positive (got ${value}). Give a number of bytes, or leave it out.`,
    { [name]: value },
  );
}

/** At most `limit` bytes, without a character that would be cut (its bytes are 10xxxxxx but the first). */
function cutAtCharacter(bytes: Uint8Array, limit: number): Uint8Array {
  let end = Math.floor(limit);
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}

function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** Offset of the first byte that is not part of a valid character. */
function invalidOffset(bytes: Uint8Array): number {
  let good = 0;
  let bad = bytes.byteLength;
  // Validity of a prefix is monotone but for a cut last character, which streaming mode tolerates.
  while (good < bad) {
    const middle = (good + bad + 1) >> 1;
    try {
      const decoder = new TextDecoder('utf-8', { fatal: true });
      decoder.decode(bytes.subarray(0, middle), { stream: true });
      good = middle;
    } catch {
      bad = middle - 1;
    }
  }
  return good;
}

function byCodeUnit(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

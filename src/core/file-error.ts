/** Turns an error of the operating system into a FileError that says what to do about it. */

import { FileError, RetuneError } from './errors.ts';

/** What went wrong, for callers that react to it: `details.reason` of the FileError. */
export type FileErrorReason =
  | 'disk-full'
  | 'permission'
  | 'read-only'
  | 'missing'
  | 'not-a-file'
  | 'not-a-folder'
  | 'too-many-open'
  | 'io';

/**
 * A FileError for the system error `cause`, raised by `who` while it worked on `path`. `kept` is a
 * sentence on what survived, for writers. Anything else that was thrown is returned as it is.
 */
export function fileErrorFrom(who: string, path: string, cause: unknown, kept = ''): unknown {
  const code = systemCode(cause);
  if (cause instanceof RetuneError || code === undefined) return cause;
  const known = meanings[code] ?? unknownMeaning;
  const tail = kept === '' ? '' : ` ${kept}`;
  return new FileError(
    `${who}: ${known.wrong} (got ${code} at ${path}). ${known.todo}.${tail}`,
    { path, reason: known.reason, code },
    cause,
  );
}

/** The `code` of a system error such as ENOENT, or undefined for any other value. */
export function systemCode(cause: unknown): string | undefined {
  if (typeof cause !== 'object' || cause === null || !('code' in cause)) return undefined;
  // Node's own argument errors are spelled ERR_..., and are bugs of the caller.
  return typeof cause.code === 'string' && /^E[A-Z0-9]+$/.test(cause.code) ? cause.code : undefined;
}

interface Meaning {
  readonly reason: FileErrorReason;
  readonly wrong: string;
  readonly todo: string;
}

const diskFull: Meaning = {
  reason: 'disk-full',
  wrong: 'the disk is full or the quota is used up',
  todo: 'Free some space or write elsewhere, then save again',
};
const permission: Meaning = {
  reason: 'permission',
  wrong: 'access is not permitted',
  todo: 'Check the owner and the mode of the path and of the folders above it',
};
const tooManyOpen: Meaning = {
  reason: 'too-many-open',
  wrong: 'too many files are open',
  todo: 'Close some, or raise the limit (ulimit -n)',
};

const meanings: Readonly<Record<string, Meaning>> = {
  ENOSPC: diskFull,
  EDQUOT: diskFull,
  EFBIG: { ...diskFull, wrong: 'the file is larger than the file system or limit allows' },
  EACCES: permission,
  EPERM: permission,
  EROFS: {
    reason: 'read-only',
    wrong: 'the file system is mounted read-only',
    todo: 'Write elsewhere, or mount it for writing',
  },
  ENOENT: {
    reason: 'missing',
    wrong: 'the path does not exist',
    todo: 'Check the spelling and the current folder',
  },
  EISDIR: {
    reason: 'not-a-file',
    wrong: 'the path is a folder where a file is needed',
    todo: 'Name a file',
  },
  ENOTDIR: {
    reason: 'not-a-folder',
    wrong: 'a part of the path is a file where a folder is needed',
    todo: 'Name a folder',
  },
  EMFILE: tooManyOpen,
  ENFILE: tooManyOpen,
};

const unknownMeaning: Meaning = {
  reason: 'io',
  wrong: 'the operating system reported a failure',
  todo: 'Check the disk and try again',
};

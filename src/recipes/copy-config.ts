/** Copying a config that comes with the package to where it can be changed. */

import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ConfigError, FileError, nearest } from '../core/errors.ts';
import { fileErrorFrom } from '../core/file-error.ts';
import { configFileName, readConfig, recipes } from './registry.ts';

/**
 * Copies config `name` to `destination`, a file or an existing folder; returns the file's path. Throws
 * ConfigError for a name that is not listed, FileError when the file is there and `replace` is not set.
 */
export async function copyConfig(
  name: string,
  destination: string,
  options: { readonly replace?: boolean } = {},
): Promise<string> {
  const names = recipes.flatMap((recipe) => recipe.configs);
  if (!names.includes(name)) {
    throw new ConfigError(
      `cp: there is no config '${name}'. Did you mean ${nearest(name, names, 2).join(' or ')}? 'retune ls' lists all.`,
      { key: name },
    );
  }
  const path = (await isFolder(destination))
    ? join(destination, configFileName(name))
    : destination;
  try {
    await writeFile(path, await readConfig(name), { flag: options.replace ? 'w' : 'wx' });
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'EEXIST') {
      throw new FileError(
        `cp: the destination is there already (got ${path}). Choose another name, or replace it with --force.`,
        { path },
        cause,
      );
    }
    throw fileErrorFrom('cp', path, cause);
  }
  return path;
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    return false;
  }
}

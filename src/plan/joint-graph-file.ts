/** Reads a `joint-graph-v1` file, plain or compressed with gzip (told by its first bytes, not its name). */

import { FileError, RetuneError } from '../core/errors.ts';
import type { PlanGraph } from './graph.ts';
import { readJointGraph } from './joint-graph.ts';

/**
 * The graph in the file at `path`.
 * @throws FileError naming the file when it is missing, cut off, no JSON or no such graph.
 */
export async function readJointGraphFile(path: string): Promise<PlanGraph> {
  const json = parse(path, await readText(path));
  try {
    return readJointGraph(json);
  } catch (error) {
    if (!(error instanceof RetuneError)) throw error;
    throw new FileError(`${path} holds no graph to plan: ${error.message}`, { path }, error);
  }
}

async function readText(path: string): Promise<string> {
  const { readFile } = await import('node:fs/promises');
  const raw = await readFile(path).catch((error: unknown) => {
    throw new FileError(
      `readJointGraphFile: ${path} cannot be read (got ${reasonOf(error)}). Name a joint-graph-v1 file, plain or gzip.`,
      { path },
      error,
    );
  });
  if (raw[0] !== 0x1f || raw[1] !== 0x8b) return raw.toString();
  const { gunzipSync } = await import('node:zlib');
  try {
    return gunzipSync(raw).toString();
  } catch (error) {
    throw new FileError(
      `readJointGraphFile: ${path} is gzip that cannot be unpacked (got ${reasonOf(error)}). It may be cut off; copy it again.`,
      { path },
      error,
    );
  }
}

function parse(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new FileError(
      `readJointGraphFile: ${path} is not JSON (got ${text.length} characters: ${reasonOf(error)}). It may be cut off, or another kind of file.`,
      { path },
      error,
    );
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

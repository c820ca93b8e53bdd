/**
 * The order of the folders under src, in one place. A folder imports from the rows above its own;
 * folders of one row do not import each other.
 */
export const layers: readonly (readonly string[])[] = [
  ['core'],
  ['plan'],
  ['ir'],
  ['codegen'],
  ['runtime'],
  ['tensor'],
  ['ops'],
  ['autograd', 'observe'],
  ['checkpoint'],
  ['compile'],
  ['nn', 'optim', 'data'],
  ['models'],
  ['recipes'],
  ['cli'],
];

/** Event types only: imports nothing, and every folder and the viewer may import it. */
export const levelZeroFile = 'src/observe/schema.ts';

/** Folders that also run in a browser: no static import of a `node:` module. */
export const portableFolders: readonly string[] = [
  'core',
  'plan',
  'ir',
  'codegen',
  'tensor',
  'ops',
  'autograd',
  'observe',
  'checkpoint',
  'compile',
  'nn',
  'optim',
];

/**
 * Folders with a public entry, `retune/<folder>`; `retune` itself is src/index.ts. An entry file
 * exists for people who install the package: nothing inside src imports one.
 */
export const entryFolders: readonly string[] = [
  'core',
  'plan',
  'ir',
  'runtime',
  'ops',
  'autograd',
  'checkpoint',
  'compile',
  'nn',
  'optim',
  'data',
  'models',
  'recipes',
];

/** Position of a folder in `layers`; undefined for a folder that is not listed. */
export function layerOf(folder: string): number | undefined {
  const level = layers.findIndex((row) => row.includes(folder));
  return level === -1 ? undefined : level;
}

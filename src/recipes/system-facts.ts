/** What a run depends on besides its config, for `retune info` and reports. */

import { availableParallelism, cpus, freemem, totalmem } from 'node:os';
import { defaultBackend } from '../runtime/registry.ts';
import { formatBytes } from '../core/bytes.ts';

/** Names and values, in the order to show them. Starts the default backend and stops it again. */
export function systemFacts(): readonly (readonly [name: string, value: string])[] {
  const backend = defaultBackend();
  const stats = backend.allocator.stats();
  const facts: (readonly [string, string])[] = [
    ['node', process.versions.node],
    ['platform', `${process.platform} ${process.arch}`],
    ['processor', `${cpus()[0]?.model ?? 'unknown'}, ${availableParallelism()} cores`],
    ['system memory', `${formatBytes(freemem())} free of ${formatBytes(totalmem())}`],
    ['backend', backend.name],
    ...Object.entries(backend.info),
    ['reserved', formatBytes(stats.reserved)],
  ];
  backend.dispose();
  return facts;
}

/**
 * Activation bytes of one layer, counted from the report of what its traced graph holds, beside the formulas
 * of arXiv 2205.05198 (equations 1 to 6, table 2). Traced on the null backend: real sizes, no memory.
 */

import {
  type SavedTensorReport,
  createNullBackend,
  currentBackend,
  savedTensors,
  scope,
  setBackend,
  zeros,
} from '../../../src/index.ts';
import { type LayerShape, type LayerVariant, PaperLayer, dtype, isStatistic } from './layer.ts';

export interface Model extends Required<LayerShape> {
  readonly name: string;
}

/** Table 3 of the paper, one micro-batch. */
export const models: readonly Model[] = [
  { name: '22B', sequence: 2048, batch: 4, hidden: 6144, heads: 64, tensorParallel: 8 },
  { name: '175B', sequence: 2048, batch: 1, hidden: 12288, heads: 96, tensorParallel: 8 },
  { name: '530B', sequence: 2048, batch: 1, hidden: 20480, heads: 128, tensorParallel: 8 },
  { name: '1T', sequence: 2048, batch: 1, hidden: 25600, heads: 160, tensorParallel: 8 },
];

export interface Configuration extends LayerVariant {
  readonly name: string;
  readonly parallel: boolean;
  /** The formula as the paper writes it. */
  readonly formula: string;
  /** Its bytes; sbh and 5as/h are handed in. */
  readonly bytes: (sbh: number, scores: number, t: number) => number;
}

export const configurations: readonly Configuration[] = [
  {
    name: 'no parallelism',
    parallel: false,
    formula: 'sbh (34 + 5as/h)',
    bytes: (sbh, scores) => sbh * (34 + scores),
  },
  {
    name: 'tensor parallel',
    parallel: true,
    formula: 'sbh (10 + 24/t + 5as/ht)',
    bytes: (sbh, scores, t) => sbh * (10 + 24 / t + scores / t),
  },
  {
    name: 'tensor and sequence parallel',
    parallel: true,
    sequenceParallel: true,
    formula: 'sbh/t (34 + 5as/h)',
    bytes: (sbh, scores, t) => (sbh / t) * (34 + scores),
  },
  {
    name: 'tensor parallel, selective recompute',
    parallel: true,
    recompute: 'selective',
    formula: 'sbh (10 + 24/t)',
    bytes: (sbh, _, t) => sbh * (10 + 24 / t),
  },
  {
    name: 'tensor and sequence parallel, selective recompute',
    parallel: true,
    sequenceParallel: true,
    recompute: 'selective',
    formula: '34 sbh/t',
    bytes: (sbh, _, t) => (34 * sbh) / t,
  },
  {
    name: 'full recompute',
    parallel: true,
    recompute: 'full',
    formula: '2 sbh',
    bytes: (sbh) => 2 * sbh,
  },
  {
    name: 'full recompute, layer inputs sharded',
    parallel: true,
    sequenceParallel: true,
    recompute: 'full',
    formula: '2 sbh/t',
    bytes: (sbh, _, t) => (2 * sbh) / t,
  },
];

/** The paper's bytes of one layer on one process. */
export function formulaBytes(
  model: Required<LayerShape>,
  { bytes, parallel }: Configuration,
): number {
  const { sequence, batch, hidden, heads, tensorParallel } = model;
  const scores = (5 * heads * sequence) / hidden;
  return bytes(sequence * batch * hidden, scores, parallel ? tensorParallel : 1);
}

/** Bytes that the traced layer holds for its backward, the norms' statistics and parameters left out. */
export function tracedBytes(model: Required<LayerShape>, configuration: Configuration): number {
  const report = tracedReport(model, configuration);
  const counted = report.entries.filter(
    (entry) => entry.category !== 'parameter' && !isStatistic(entry),
  );
  return counted.reduce((sum, entry) => sum + entry.bytes, 0);
}

/** What the graph of the layer holds. */
export function tracedReport(
  model: Required<LayerShape>,
  { parallel, sequenceParallel, recompute }: Omit<Configuration, 'bytes' | 'name' | 'formula'>,
): SavedTensorReport {
  const before = currentBackend();
  const backend = createNullBackend();
  setBackend(backend);
  try {
    return scope(() => {
      const tensorParallel = parallel ? model.tensorParallel : 1;
      const layer = new PaperLayer(
        { ...model, tensorParallel },
        { sequenceParallel: sequenceParallel ?? false, recompute: recompute ?? 'none' },
      );
      const tokens = model.sequence / (sequenceParallel ? tensorParallel : 1);
      const x = zeros([tokens, model.batch, model.hidden], {
        dtype,
        requiresGrad: true,
      });
      try {
        return savedTensors(layer.call(x));
      } finally {
        layer.dispose();
      }
    });
  } finally {
    setBackend(before);
    backend.dispose();
  }
}

/** What regions and policies leave to the planner (checkpointing.md P3, S1). */

import type { Graph, Node } from '../ir/graph.ts';
import { baseOf } from './base-value.ts';
import type { RematRule } from './remat-graph.ts';
import { policiesOf } from './rematerialize.ts';

/** Says of each node of one graph what may be done with its values. */
export type RematRules = (graph: Graph) => (node: Node) => RematRule;

/** Only values inside regions are up for choice; hints to save are followed. */
export const withinRegions: RematRules = (graph) => {
  const policies = policiesOf(graph);
  return (node) => {
    const policy = policies.get(node);
    if (policy === 'mustRecompute') return 'drop';
    const undecided = policy === undefined || policy === 'preferRecompute';
    return undecided && isInRegion(node) && !node.op?.traits.keep ? 'free' : 'keep';
  };
};

/**
 * All values are up for choice but those that are ordered. Regions order to recompute what only they read;
 * what they hand on is a value like those outside.
 */
export const underBudget: RematRules = (graph) => {
  const policies = policiesOf(graph);
  const handedOn = readOutsideRegion(graph);
  return (node) => {
    const policy = policies.get(node);
    if (policy === 'mustRecompute') return 'drop';
    if (policy === 'preferSave' || policy === 'preferOffload') return 'free';
    if (policy !== undefined && policy !== 'preferRecompute') return 'keep';
    if (node.op?.traits.keep) return 'keep';
    const dropped = isInRegion(node) && (node.meta.discarded || !handedOn.has(node));
    return dropped ? 'drop' : 'free';
  };
};

/** As underBudget, as if there were no regions: for asking what other settings would give. */
export const withoutRegions: RematRules = (graph) => {
  const ruleOf = underBudget(graph);
  return (node) => (isInRegion(node) && node.meta.policy === undefined ? 'free' : ruleOf(node));
};

/** Nodes in regions whose values forward reads outside their outermost region. */
function readOutsideRegion(graph: Graph): Set<Node> {
  const found = new Set<Node>();
  for (const reader of graph.nodes) {
    if (reader.meta.phase !== 'forward') continue;
    for (const input of reader.inputs) {
      const { node } = baseOf(input);
      if (isInRegion(node) && node.meta.regions[0] !== reader.meta.regions[0]) found.add(node);
    }
  }
  return found;
}

function isInRegion(node: Node): boolean {
  return node.meta.regions.length > 0;
}

/** Which values may wait for backward outside memory or in fewer bits, and at what price: by order of a policy, or to a planner's choice. */

import { encodedBytes } from '../checkpoint/codec.ts';
import { savedOutputIndex } from '../ir/op.ts';
import { type Aval, avalBytes, formatAval } from '../ir/aval.ts';
import {
  type Graph,
  GraphBuilder,
  type Node,
  type SaveFormat,
  type Value,
  liveOutputs,
} from '../ir/graph.ts';
import { alignBytes } from '../runtime/allocator.ts';
import { baseOf } from './base-value.ts';
import { type CostModel, programNs } from './cost-model.ts';
import { fuse } from './fuse.ts';
import { policiesOf } from './rematerialize.ts';
import { type Aside, asideOf, bringBack, canWait, setAside } from './set-aside.ts';
import { type TransferRates, fetchNs, storeNs } from './transfer-rates.ts';

/** What a planner may do beside keeping values and computing them again. */
export interface PlannerActions {
  readonly offload: boolean;
  readonly compress: SaveFormat | undefined;
  /** Whether hints to offload are orders: they are but under a budget. */
  readonly hintsAreOrders: boolean;
  /** Keys of values that must stay exact and may not be compressed. */
  readonly exact?: ReadonlySet<string>;
}

/** Text that names a value in every graph that the same passes make of the same step. */
export function valueKey({ node, index }: Value): string {
  return `${node.id}.${index}`;
}

export interface AsideChoice {
  readonly aside: Aside;
  /** Ordered: the value does not wait in memory as it is. */
  readonly ordered: boolean;
  /** Of what stands for the value meanwhile. */
  readonly bytes: number;
  /** Nanoseconds of setting it aside and bringing it back. */
  readonly costNs: number;
}

/** Smaller values are not worth it, unless a policy orders it. */
const minBytes = 64 * 1024;

/** Answers for the values of `graph` that are made in forward and read later on. */
export class AsideChoices {
  readonly #actions: PlannerActions;
  readonly #rates: TransferRates;
  readonly #policies: ReturnType<typeof policiesOf>;
  readonly #readLater = new Set<Value>();
  readonly #excluded: Set<Value>;
  readonly #exact: ReadonlySet<string>;
  readonly #costOf: CostModel;
  readonly #codecs = new Map<string, number>();

  /** `costOf` prices encoding and decoding. */
  constructor(
    graph: Graph,
    actions: PlannerActions,
    { rates, costOf }: { readonly rates: TransferRates; readonly costOf: CostModel },
  ) {
    this.#actions = actions;
    this.#costOf = costOf;
    this.#rates = rates;
    this.#policies = policiesOf(graph);
    this.#excluded = new Set([...liveOutputs(graph)].map(baseOf));
    this.#exact = new Set([...(actions.exact ?? []), ...[...exactValues(graph)].map(valueKey)]);
    for (const node of graph.nodes) {
      for (const { input } of node.op?.traits.updates ?? []) {
        const target = node.inputs[input];
        if (target) this.#excluded.add(baseOf(target));
      }
      if (node.meta.phase === 'forward') continue;
      for (const value of node.inputs) this.#readLater.add(baseOf(value));
    }
  }

  /** What a policy orders, or hints at; undefined for other values. */
  ordered(value: Value): AsideChoice | undefined {
    const policy = this.#policies.get(value.node);
    const aside = asideOf(policy);
    if (!aside || !this.#isEligible(value, aside)) return undefined;
    const ordered = policy !== 'preferOffload' || this.#actions.hintsAreOrders;
    return this.#priced(value, aside, ordered);
  }

  /** What a planner may do instead of `repeatNs` of work. */
  optional(value: Value, repeatNs: number): AsideChoice | undefined {
    const { offload, compress } = this.#actions;
    const aside = compress ?? (offload ? 'offload' : undefined);
    if (!aside || avalBytes(value.aval) < minBytes || !this.#isEligible(value, aside)) {
      return undefined;
    }
    if (compress && this.#exact.has(valueKey(value))) return undefined;
    const choice = this.#priced(value, aside, false);
    return choice.costNs < repeatNs ? choice : undefined;
  }

  #isEligible(value: Value, aside: Aside): boolean {
    if (value.node.meta.phase !== 'forward' || this.#excluded.has(value)) return false;
    return this.#readLater.has(value) && canWait(value, aside);
  }

  #priced({ aval }: Value, aside: Aside, ordered: boolean): AsideChoice {
    const bytes = avalBytes(aval);
    if (aside === 'offload') {
      const costNs = storeNs(bytes, this.#rates) + fetchNs(bytes, this.#rates);
      return { aside, ordered, bytes: 0, costNs };
    }
    const small = encodedBytes(aval, aside) ?? bytes;
    return { aside, ordered, bytes: alignBytes(small), costNs: this.#codecNs(aval, aside) };
  }

  /** Time of the kernels that set a value aside and bring it back. */
  #codecNs(aval: Aval, format: SaveFormat): number {
    const key = `${format} ${formatAval(aval)}`;
    const known = this.#codecs.get(key);
    if (known !== undefined) return known;
    const builder = new GraphBuilder();
    const value = builder.input('x', aval);
    const parts = setAside(builder, value, format);
    const back = bringBack(builder, parts, value, format, 0);
    const steps = fuse(builder.build([...parts, back], []), { enabled: false });
    const ns = programNs(steps, this.#costOf);
    this.#codecs.set(key, ns);
    return ns;
  }
}

/** Values that stand for many others, by the declarations of the ops that save them. */
function* exactValues(graph: Graph): Generator<Value> {
  for (const node of graph.nodes) {
    const { exactSaves = [] } = node.op?.traits ?? {};
    for (const name of exactSaves) {
      const value = savedValue(node, name);
      if (value) yield baseOf(value);
    }
  }
}

function savedValue(node: Node, name: string): Value | undefined {
  const output = savedOutputIndex(name);
  if (output !== undefined) return node.outputs[output];
  return node.inputs[node.op?.args.indexOf(name) ?? -1];
}

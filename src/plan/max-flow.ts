/**
 * Maximum flow with capacities that may grow between solves (Dinic 1970, levels measured from the sink).
 * Flow found before stays: raising capacities and solving again continues from it. Capacities are integers
 * held in float64, so sums are exact below 2^53.
 */

export const unlimited = 2 ** 52;

export class MaxFlow {
  readonly source: number;
  readonly sink: number;
  #count: number;
  #head: Int32Array;
  #next: Int32Array;
  #to: Int32Array;
  #residual: Float64Array;
  #edges = 0;
  #level: Int32Array;
  #current: Int32Array;
  #queue: Int32Array;
  #path: Int32Array;
  /** Flow so far. */
  value = 0;

  constructor(nodes: number, edges: number) {
    this.source = nodes;
    this.sink = nodes + 1;
    this.#count = nodes + 2;
    this.#head = new Int32Array(this.#count).fill(-1);
    this.#next = new Int32Array(2 * edges);
    this.#to = new Int32Array(2 * edges);
    this.#residual = new Float64Array(2 * edges);
    this.#level = new Int32Array(this.#count);
    this.#current = new Int32Array(this.#count);
    this.#queue = new Int32Array(this.#count);
    this.#path = new Int32Array(this.#count);
  }

  /** Number of the new edge. */
  addEdge(from: number, to: number, capacity: number): number {
    const edge = this.#edges;
    this.#edges += 2;
    this.#to[edge] = to;
    this.#residual[edge] = capacity;
    this.#next[edge] = this.#head[from] as number;
    this.#head[from] = edge;
    this.#to[edge + 1] = from;
    this.#next[edge + 1] = this.#head[to] as number;
    this.#head[to] = edge + 1;
    return edge;
  }

  raise(edge: number, by: number): void {
    this.#residual[edge] = (this.#residual[edge] as number) + by;
  }

  /** A copy of the residual capacities, which with `value` is all there is to come back to; `into` is filled when given. */
  residual(into: Float64Array = new Float64Array(this.#residual.length)): Float64Array {
    into.set(this.#residual);
    return into;
  }

  restore(saved: { readonly residual: Float64Array; readonly value: number }): void {
    this.#residual.set(saved.residual);
    this.value = saved.value;
  }

  /** Largest flow; afterwards `reachesSink` tells the sides of the cut that is nearest to the sink. */
  solve(): number {
    while (this.#levels()) {
      this.#current.set(this.#head);
      this.#block();
    }
    return this.value;
  }

  /** Whether a node lies on the sink's side of the minimum cut. */
  reachesSink(node: number): boolean {
    return (this.#level[node] as number) >= 0;
  }

  #levels(): boolean {
    const level = this.#level.fill(-1);
    const queue = this.#queue;
    level[this.sink] = 0;
    queue[0] = this.sink;
    let filled = 1;
    for (let read = 0; read < filled; read++) {
      const node = queue[read] as number;
      for (let edge = this.#head[node] as number; edge >= 0; edge = this.#next[edge] as number) {
        const from = this.#to[edge] as number;
        if ((level[from] as number) < 0 && (this.#residual[edge ^ 1] as number) > 0) {
          level[from] = (level[node] as number) + 1;
          queue[filled++] = from;
        }
      }
    }
    return (level[this.source] as number) >= 0;
  }

  #block(): void {
    const { source, sink } = this;
    const level = this.#level;
    const current = this.#current;
    const residual = this.#residual;
    const next = this.#next;
    const to = this.#to;
    const path = this.#path;
    let depth = 0;
    let node = source;
    for (;;) {
      if (node === sink) {
        let least = unlimited;
        for (let i = 0; i < depth; i++)
          least = Math.min(least, residual[path[i] as number] as number);
        this.value += least;
        let back = 0;
        for (let i = depth - 1; i >= 0; i--) {
          const edge = path[i] as number;
          residual[edge] = (residual[edge] as number) - least;
          residual[edge ^ 1] = (residual[edge ^ 1] as number) + least;
          if (residual[edge] === 0) back = i;
        }
        depth = back;
        node = to[(path[back] as number) ^ 1] as number;
        continue;
      }
      let edge = current[node] as number;
      const wanted = (level[node] as number) - 1;
      while (
        edge >= 0 &&
        !((residual[edge] as number) > 0 && level[to[edge] as number] === wanted)
      ) {
        edge = next[edge] as number;
      }
      current[node] = edge;
      if (edge >= 0) {
        path[depth++] = edge;
        node = to[edge] as number;
      } else {
        if (depth === 0) return;
        depth--;
        node = to[(path[depth] as number) ^ 1] as number;
        current[node] = next[current[node] as number] as number;
      }
    }
  }
}

/** Nanoseconds of pieces of work on one device, by a text that describes the work. */
export interface CostCache {
  get(work: string): number | undefined;
  set(work: string, ns: number): void;
}

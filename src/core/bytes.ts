/** Amounts of memory as people write and read them. */

const unitNames = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

const unitBytes: ReadonlyMap<string, number> = new Map([
  ...unitNames.map((name, i) => [name.toLowerCase(), 2 ** (10 * i)] as const),
  ...['kB', 'MB', 'GB', 'TB'].map((name, i) => [name.toLowerCase(), 10 ** (3 * (i + 1))] as const),
]);

/** Bytes for people: 1536 is "1.50 KiB". */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < unitNames.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${unitNames[unit]}`;
}

/** Whole bytes of `512MiB`, `1.5 GiB`, `64kB` or `4096` (bytes); undefined for anything else. */
export function parseBytes(text: string): number | undefined {
  const match = /^\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*$/i.exec(text);
  const unit = match?.[2]?.toLowerCase() || 'b';
  const bytes = Number(match?.[1] ?? Number.NaN) * (unitBytes.get(unit) ?? Number.NaN);
  return Number.isFinite(bytes) ? Math.floor(bytes) : undefined;
}

/** What `readBytes` takes, for error messages. */
export const byteForms = "a whole number of bytes from 0 on, or a text such as '64KiB'";

/** Whole bytes of a number or of a text as parseBytes takes it; undefined for anything else. */
export function readBytes(value: unknown): number | undefined {
  if (typeof value === 'string') return parseBytes(value);
  return Number.isSafeInteger(value) && Number(value) >= 0 ? Number(value) : undefined;
}

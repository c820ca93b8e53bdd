/** Indented lines of WGSL, and the spelling of numbers. Knows nothing of kernels. */

/** Collects lines; `block` writes `head {`, the indented body and `}`. */
export class WgslText {
  readonly #lines: string[] = [];
  #depth = 0;

  line(text: string): this {
    this.#lines.push(text === '' ? '' : '  '.repeat(this.#depth) + text);
    return this;
  }

  /** Several lines at the present depth; their own indentation is kept. */
  lines(text: string): this {
    for (const line of text.split('\n')) this.line(line);
    return this;
  }

  block(head: string, body: () => void): this {
    this.line(head === '' ? '{' : `${head} {`);
    this.#depth++;
    body();
    this.#depth--;
    return this.line('}');
  }

  toString(): string {
    return `${this.#lines.join('\n')}\n`;
  }
}

export function u32Text(value: number): string {
  return `${value >>> 0}u`;
}

export function i32Text(value: number): string {
  // `-2147483648i` is read as minus of a literal that is out of range; the untyped form is not.
  return `i32(${value | 0})`;
}

/**
 * A float32 literal that reads back to the same bits. Infinities, NaN, -0 and subnormals cannot be
 * written as constants in WGSL (or are flushed) and go through the library function `f32FromBits`.
 */
export function f32Text(value: number): string {
  const rounded = Math.fround(value);
  const plain =
    Number.isFinite(rounded) && (Math.abs(rounded) >= 2 ** -126 || Object.is(rounded, 0));
  if (!plain) {
    const bits = new Uint32Array(new Float32Array([rounded]).buffer)[0]!;
    return `f32FromBits(0x${bits.toString(16)}u)`;
  }
  return `${rounded}f`;
}

/**
 * `start + c0 * 3 - c1`: the terms with nonzero steps, in u32 arithmetic. Negative steps are
 * subtracted; intermediate wrap-around is defined in WGSL and cancels.
 */
export function indexText(
  start: string | undefined,
  offset: number,
  terms: readonly { readonly name: string; readonly step: number }[],
): string {
  let text = start ?? '';
  if (offset !== 0) text += text === '' ? u32Text(offset) : ` + ${u32Text(offset)}`;
  for (const { name, step } of terms) {
    if (step === 0) continue;
    const size = Math.abs(step);
    const product = size === 1 ? name : `${name} * ${u32Text(size)}`;
    if (text === '' && step > 0) text = product;
    else text = `${text === '' ? '0u' : text} ${step < 0 ? '-' : '+'} ${product}`;
  }
  return text === '' ? '0u' : text;
}

/** Smallest power of two that is at least `value`. */
export function powerOfTwoAtLeast(value: number): number {
  let power = 1;
  while (power < value) power *= 2;
  return power;
}

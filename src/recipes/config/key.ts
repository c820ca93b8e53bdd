/**
 * How a config key is declared: a valibot schema that carries the legal values in words (its title) and
 * what the key does (its description), so that errors and help come from the same place as the check.
 */

import * as v from 'valibot';

/** A schema whose legal values are called `words` in errors and help. */
function named<S extends v.GenericSchema>(words: string, schema: S) {
  return v.pipe(schema, v.title(words));
}

/** A key with its documentation. Wrap the result in `v.optional` for a default. */
export function key<S extends v.GenericSchema>(schema: S, doc: string) {
  return v.pipe(schema, v.description(doc));
}

export const text = named('text', v.string());
export const flag = named('true or false', v.boolean());
export const count = named(
  'a whole number of at least 1',
  v.pipe(v.number(), v.integer(), v.minValue(1)),
);
export const countOrZero = named(
  'a whole number of at least 0',
  v.pipe(v.number(), v.integer(), v.minValue(0)),
);
export const positive = named('a number above 0', v.pipe(v.number(), v.finite(), v.gtValue(0)));
export const atLeastZero = named(
  'a number of at least 0',
  v.pipe(v.number(), v.finite(), v.minValue(0)),
);
/** A part of a whole, such as a share of the data: 1 is excluded. */
export const fraction = named(
  'a number from 0 to below 1',
  v.pipe(v.number(), v.minValue(0), v.ltValue(1)),
);
export const textList = named('text, or a list of texts', v.union([text, v.array(text)]));

export function oneOf<const T extends readonly [string, ...string[]]>(options: T) {
  return named(`one of ${options.join(', ')}`, v.picklist(options));
}

/** Numbers of a fixed length, such as [0.9, 0.999]. */
export const betas = named(
  'two numbers from 0 to below 1, such as [0.9, 0.999]',
  v.tuple([fraction, fraction]),
);

/** A schema whose keys are listed; any other key is an error. */
export type ConfigSchema = v.StrictObjectSchema<
  Record<string, v.GenericSchema>,
  v.ErrorMessage<v.StrictObjectIssue> | undefined
>;

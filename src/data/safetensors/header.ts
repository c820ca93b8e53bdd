/**
 * The header of a safetensors file: 8 bytes with its length (little endian), then JSON that maps each
 * tensor's name to dtype, shape and the byte range of its data, counted from the end of the header.
 * Parsing checks everything the format promises, so that later reads cannot go wrong quietly.
 * Source: the format's specification at https://github.com/huggingface/safetensors.
 */

import { FileError } from '../../core/errors.ts';
import { formatShape, numElements, type Shape } from '../../core/shape.ts';
import { storedDTypes } from './stored-dtype.ts';

/** One tensor as the header describes it. */
export interface TensorRecord {
  readonly name: string;
  /** Spelling of the file, such as F32 or I64. */
  readonly stored: string;
  readonly shape: Shape;
  /** First byte of the data, counted from the start of the data section. */
  readonly begin: number;
  readonly bytes: number;
}

export interface Header {
  /** In the order of their data. */
  readonly tensors: ReadonlyMap<string, TensorRecord>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Bytes of the data section. */
  readonly dataBytes: number;
}

/** The format's own limit on the JSON part. */
export const maxHeaderBytes = 100_000_000;

/** Bytes of the length field. */
export const lengthBytes = 8;

/**
 * Length of the JSON part, from the first 8 bytes of a file of `fileBytes` bytes. Throws FileError
 * when the file is too short or the length impossible.
 */
export function parseHeaderLength(path: string, prefix: Uint8Array, fileBytes: number): number {
  if (prefix.byteLength < lengthBytes) {
    throw headerError(
      path,
      `the file ends inside the length field (got ${fileBytes} bytes, at least ${lengthBytes} expected)`,
    );
  }
  const view = new DataView(prefix.buffer, prefix.byteOffset, lengthBytes);
  const length = Number(view.getBigUint64(0, true));
  if (length > maxHeaderBytes) {
    throw headerError(
      path,
      `the header is too long to be one (got ${length} bytes, at most ${maxHeaderBytes} allowed)`,
      'The file is probably not in safetensors format',
    );
  }
  if (lengthBytes + length > fileBytes) {
    throw headerError(
      path,
      `the file is truncated inside its header (expected at least ${lengthBytes + length} bytes, got ${fileBytes})`,
    );
  }
  return length;
}

/**
 * Parses the JSON part and checks that the tensors cover the `dataBytes` bytes that follow it without
 * holes or overlap. Throws FileError that names the tensor, what was expected and what was found.
 */
export function parseHeader(path: string, json: Uint8Array, dataBytes: number): Header {
  const root = parseJson(path, json);
  const tensors = new Map<string, TensorRecord>();
  let metadata: Readonly<Record<string, string>> = {};
  for (const [name, value] of Object.entries(root)) {
    if (name === '__metadata__') metadata = parseMetadata(path, value);
    else tensors.set(name, parseTensor(path, name, value));
  }
  const order = [...tensors.values()].sort((a, b) => a.begin - b.begin || a.bytes - b.bytes);
  let end = 0;
  for (const tensor of order) {
    if (tensor.begin !== end) {
      const what = tensor.begin < end ? 'overlaps the tensor before it' : 'leaves a hole before it';
      throw headerError(
        path,
        `tensor '${tensor.name}' ${what} (its data begins at ${tensor.begin}, expected ${end})`,
      );
    }
    end += tensor.bytes;
    if (end > dataBytes) {
      throw headerError(
        path,
        `the file is truncated in tensor '${tensor.name}' (its data ends at ${end}, the file has ${dataBytes} bytes of data)`,
      );
    }
  }
  if (end !== dataBytes) {
    throw headerError(
      path,
      `${dataBytes - end} bytes follow the last tensor (expected ${end} bytes of data, got ${dataBytes})`,
    );
  }
  return { tensors: new Map(order.map((tensor) => [tensor.name, tensor])), metadata, dataBytes };
}

/** The bytes of a file before its data: length field and JSON, padded with spaces to a multiple of 8. */
export function encodeHeader(
  tensors: readonly TensorRecord[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  const parts: string[] = [];
  if (Object.keys(metadata).length > 0) parts.push(`"__metadata__":${JSON.stringify(metadata)}`);
  for (const { name, stored, shape, begin, bytes } of tensors) {
    const record = { dtype: stored, shape, data_offsets: [begin, begin + bytes] };
    parts.push(`${JSON.stringify(name)}:${JSON.stringify(record)}`);
  }
  const json = Buffer.from(`{${parts.join(',')}}`);
  const length = Math.ceil(json.byteLength / 8) * 8;
  const out = new Uint8Array(lengthBytes + length).fill(0x20);
  new DataView(out.buffer).setBigUint64(0, BigInt(length), true);
  out.set(json, lengthBytes);
  return out;
}

function parseJson(path: string, json: Uint8Array): Record<string, unknown> {
  let root: unknown;
  try {
    root = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(json));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw headerError(path, `the header is not JSON (${reason})`, undefined, cause);
  }
  if (!isRecord(root)) throw headerError(path, 'the header is not a JSON object');
  return root;
}

function parseMetadata(path: string, value: unknown): Readonly<Record<string, string>> {
  if (!isRecord(value)) throw headerError(path, '__metadata__ is not an object');
  const out: Record<string, string> = {};
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') {
      throw headerError(path, `__metadata__ key '${key}' is not a string (got ${typeof text})`);
    }
    out[key] = text;
  }
  return out;
}

function parseTensor(path: string, name: string, value: unknown): TensorRecord {
  const wrong = (what: string): FileError => headerError(path, `tensor '${name}' ${what}`);
  if (!isRecord(value)) throw wrong('is not described by an object');
  const { dtype: stored, shape, data_offsets: offsets } = value;
  if (typeof stored !== 'string') throw wrong('has no dtype');
  const info = storedDTypes.get(stored);
  if (info === undefined) throw wrong(`has an unknown dtype (got '${stored}')`);
  if (!isSizes(shape)) throw wrong(`has an impossible shape (got ${JSON.stringify(shape)})`);
  if (!isSizes(offsets) || offsets.length !== 2) {
    throw wrong(`has impossible data_offsets (got ${JSON.stringify(offsets)})`);
  }
  const [begin = 0, end = 0] = offsets;
  const expected = numElements(shape) * info.bytes;
  if (!Number.isSafeInteger(expected) || end - begin !== expected) {
    throw wrong(
      `has data of another size than its shape (${stored} ${formatShape(shape)} needs ${expected} bytes, ` +
        `data_offsets [${begin}, ${end}] hold ${end - begin})`,
    );
  }
  return { name, stored, shape, begin, bytes: expected };
}

function headerError(
  path: string,
  what: string,
  todo = 'Download or save the file again',
  cause?: unknown,
): FileError {
  return new FileError(`openSafetensors: ${path}: ${what}. ${todo}.`, { path }, cause);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

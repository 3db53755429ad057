/**
 * The file `manifest.json`: what the snapshot is, its files with sizes and checksums, its parent. It ends with its own
 * digest: SHA-256 of every byte before the last line but one. Nothing in it is used before digest and schema were checked.
 */
import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { VmmError } from '../base/errors.js';
import { integer } from '../base/saved-state.js';
import { damaged, FORMAT_VERSION, Limit } from './format.js';
import { fromJson, toJson } from './values.js';

const FORMAT = 'vivarium snapshot';
const sha256 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
const uuid = v.pipe(v.string(), v.regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/));

const part = (maxBytes: number) => v.strictObject({ sizeBytes: integer(0, maxBytes), sha256 });

const schema = v.strictObject({
  format: v.literal(FORMAT),
  version: v.literal(FORMAT_VERSION),
  id: uuid,
  /** Milliseconds since 1970. */
  createdMs: integer(0, 2 ** 52),
  memoryBytes: integer(4096, Limit.MEMORY_BYTES),
  /** Of state, configuration and memory with what is in parents: it stays when a parent is merged in. */
  content: sha256,
  parent: v.nullable(
    v.strictObject({
      id: uuid,
      content: sha256,
      /** Where it was, seen from this folder. A hint. */
      path: v.pipe(
        v.string(),
        v.minLength(1),
        v.maxBytes(Limit.PATH_BYTES),
        v.check((path) => !path.includes('\0'), 'no path'),
      ),
    }),
  ),
  parts: v.strictObject({
    state: part(Limit.STATE_BYTES),
    index: part(Limit.MEMORY_BYTES),
    /** Checked by the index. */
    memory: v.strictObject({ sizeBytes: integer(0, 2 * Limit.MEMORY_BYTES) }),
    access: v.nullable(part(Limit.MEMORY_BYTES)),
  }),
  /** The machine's configuration: a plain value whose meaning and schema are its own. */
  config: v.unknown(),
});

export type Manifest = v.InferOutput<typeof schema>;
export type ManifestPart = Manifest['parts']['state'];

export function digestOf(...pieces: readonly (Uint8Array | string)[]): string {
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return hash.digest('hex');
}

/** The configuration as the manifest and the content digest have it. */
export function configText(config: unknown): string {
  return JSON.stringify(toJson(config));
}

const END = /^ {2}"digest": "([0-9a-f]{64})"\n\}\n$/;
const END_CHARACTERS = '  "digest": ""\n}\n'.length + 64;

/** @throws VmmError ERR_SNAPSHOT when it is too long. */
export function encodeManifest(manifest: Manifest): Uint8Array {
  const text = JSON.stringify({ ...manifest, config: toJson(manifest.config) }, undefined, 2);
  const body = `${text.slice(0, -2)},\n`;
  const bytes = Buffer.from(`${body}  "digest": "${digestOf(body)}"\n}\n`, 'utf8');
  if (bytes.length > Limit.MANIFEST_BYTES) throw damaged('manifest.json', `${bytes.length} bytes are more than may be`);
  return bytes;
}

/** @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION for another version of the format; both name `file`. */
export function decodeManifest(bytes: Uint8Array, file: string): Manifest {
  const at = Math.max(0, bytes.length - END_CHARACTERS);
  const body = bytes.subarray(0, at);
  const end = END.exec(Buffer.from(bytes.subarray(at)).toString('latin1'));
  if (end === null) throw damaged(file, 'it is no manifest of a snapshot');
  if (end[1] !== digestOf(body)) throw damaged(file, 'its digest is wrong');
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw damaged(file, 'it is no manifest of a snapshot', cause);
  }
  const { digest: _, ...rest } = json as Record<string, unknown>;
  if (rest['format'] === FORMAT && rest['version'] !== FORMAT_VERSION) {
    throw new VmmError(
      'ERR_SNAPSHOT_VERSION',
      `${file}: version ${JSON.stringify(rest['version'])} of the format; this vivarium reads ${FORMAT_VERSION}`,
    );
  }
  const result = v.safeParse(schema, rest);
  if (!result.success) {
    const issue = result.issues[0];
    throw damaged(file, `${v.getDotPath(issue) ?? 'the whole'}: ${issue.message}`);
  }
  return { ...result.output, config: fromJson(result.output.config) };
}

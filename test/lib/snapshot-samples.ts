/** The stored snapshots in test/corpus/snapshots: where they are; and copies of snapshots in which a part of the state is another. */
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { decodeManifest, digestOf, encodeManifest } from '../../lib/snapshot/manifest.js';

const ROOT = path.resolve(import.meta.dirname, '../corpus/snapshots');

/** One for each version of the format or of a part in it, the oldest first; each holds a `base` and a `child`. */
export const SAMPLES = readdirSync(ROOT)
  .sort((a, b) => Number(a) - Number(b))
  .map((name) => path.join(ROOT, name));
export const NEWEST = SAMPLES.at(-1)!;

/** A state within the file `state`, with the path to it through the others: 'board/cpus/0'. */
export interface SamplePart {
  readonly where: string;
  readonly type: string;
  readonly version: number;
}

type Json = Record<string, unknown>;
const isPart = (value: unknown): value is Json => {
  return typeof value === 'object' && value !== null && Object.keys(value).join() === 'type,version,data';
};

/** A part of a parsed `state`, to be changed. */
export interface ParsedPart extends SamplePart {
  /** As in the file: a bigint is `{ $n: '123' }`. */
  readonly data: unknown;
  setVersion(version: number): void;
}

function walk(state: [string, number, unknown][], see: (part: ParsedPart) => void): void {
  const into = (value: unknown, where: string): void => {
    if (isPart(value)) {
      const setVersion = (version: number): void => void (value['version'] = version);
      see({ where, type: String(value['type']), version: Number(value['version']), data: value['data'], setVersion });
    }
    if (typeof value !== 'object' || value === null) return;
    for (const [name, inner] of Object.entries(value)) into(inner, name === 'data' ? where : `${where}/${name}`);
  };
  for (const [index, part] of state.entries()) {
    const [type, version, data] = part;
    const where = `${index}:${type}`;
    see({ where, type, version, data, setVersion: (other) => void (part[1] = other) });
    into(data, where);
  }
}

const read = (dir: string) => JSON.parse(readFileSync(path.join(dir, 'state'), 'utf8')) as [string, number, unknown][];

export function partsOf(dir: string): SamplePart[] {
  const parts: SamplePart[] = [];
  walk(read(dir), (part) => parts.push(part));
  return parts;
}

/** A copy of the snapshot `dir`, sound, and with what `change` makes of each part of its state. */
export function copyWithState(dir: string, copy: string, change: (part: ParsedPart) => void): void {
  cpSync(dir, copy, { recursive: true });
  const state = read(dir);
  walk(state, change);
  const bytes = Buffer.from(JSON.stringify(state));
  writeFileSync(path.join(copy, 'state'), bytes);
  changeManifest(copy, (manifest) => ({
    ...manifest,
    parts: { ...manifest.parts, state: { sizeBytes: bytes.length, sha256: digestOf(bytes) } },
  }));
}

/** The same, with one part in another version. */
export function copyWithVersion(dir: string, copy: string, where: string, version: number): void {
  copyWithState(dir, copy, (part) => {
    if (part.where === where) part.setVersion(version);
  });
}

type Manifest = ReturnType<typeof decodeManifest>;

/** Writes the manifest of a copy anew, with a right digest. */
export function changeManifest(copy: string, change: (manifest: Manifest) => Manifest): void {
  const file = path.join(copy, 'manifest.json');
  writeFileSync(file, encodeManifest(change(decodeManifest(readFileSync(file), file))));
}

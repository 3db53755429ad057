/**
 * Reads a tar archive from a stream of bytes: entries in order, each with its bytes. Nothing of it is believed: lengths are bounded
 * before anything is kept, and names are as they are, for whoever uses them to check.
 */
import { BLOCK_BYTES, broken, decodeHeader, decodePax, type TarEntry } from './tar-format.js';

/** A name, or a pax header, is at most so long. */
const MAX_META_BYTES = 1024 * 1024;
/** PATH_MAX of Linux. */
const MAX_NAME_LENGTH = 4096;

/** An entry whose bytes are to be read, or are passed over, before the next one. */
export interface OpenTarEntry extends TarEntry {
  readonly bytes: AsyncIterable<Buffer>;
}

/** @throws VmmError ERR_CONTROL for what is no archive, or ends in the middle */
export async function* readTar(source: AsyncIterable<Buffer>): AsyncGenerator<OpenTarEntry, void, undefined> {
  const input = new ByteReader(source);
  let longName: string | undefined;
  let longLink: string | undefined;
  let pax = new Map<string, string>();
  let global = new Map<string, string>();
  for (;;) {
    const block = await input.exactly(BLOCK_BYTES, true);
    if (block === undefined) return;
    const header = decodeHeader(block);
    if (header === undefined) break;
    const { type, sizeBytes } = header;
    if (type === 'x' || type === 'g' || type === 'L' || type === 'K') {
      if (sizeBytes > MAX_META_BYTES) throw broken('a name without end');
      const payload = (await input.exactly(sizeBytes))!;
      await input.skip(padded(sizeBytes) - sizeBytes);
      if (type === 'x') pax = decodePax(payload);
      else if (type === 'g') global = new Map([...global, ...decodePax(payload)]);
      else if (type === 'L') longName = cutAtNul(payload);
      else longLink = cutAtNul(payload);
      continue;
    }
    const extra = new Map([...global, ...pax]);
    const size = numberIn(extra.get('size')) ?? sizeBytes;
    let left = header.kind === 'file' || header.kind === 'other' ? size : 0;
    const entry: OpenTarEntry = {
      ...header,
      name: extra.get('path') ?? longName ?? header.name,
      linkName: extra.get('linkpath') ?? longLink ?? header.linkName,
      sizeBytes: left,
      mtimeS: numberIn(extra.get('mtime')?.replace(/^-.*/, '0')) ?? header.mtimeS,
      bytes: (async function* bytes() {
        while (left > 0) {
          const piece = await input.some(left);
          left -= piece.length;
          yield piece;
        }
      })(),
    };
    if (Math.max(entry.name.length, entry.linkName.length) > MAX_NAME_LENGTH) throw broken('a name without end');
    const total = left;
    yield entry;
    await input.skip(left);
    await input.skip(padded(total) - total);
    longName = longLink = undefined;
    pax = new Map();
  }
  // What follows the end is not of the archive, but whoever writes it must not be held.
  await input.drain();
}

function padded(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES;
}

function cutAtNul(payload: Buffer): string {
  const end = payload.indexOf(0);
  return payload.toString('utf8', 0, end < 0 ? payload.length : end);
}

function numberIn(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || value > Number.MAX_SAFE_INTEGER)
    throw broken(`${JSON.stringify(text)} is no number`);
  return Math.floor(value);
}

class ByteReader {
  readonly #source: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** At least one byte, at most `maxBytes`. */
  async some(maxBytes: number): Promise<Buffer> {
    if (this.#rest.length === 0 && !(await this.#more())) throw broken('it ends in the middle');
    const piece = this.#rest.subarray(0, maxBytes);
    this.#rest = this.#rest.subarray(piece.length);
    return piece;
  }

  /** So many bytes; undefined at the end of the stream, where that may be. */
  async exactly(bytes: number, mayEnd = false): Promise<Buffer | undefined> {
    const pieces: Buffer[] = [];
    for (let left = bytes; left > 0;) {
      if (this.#rest.length === 0 && !(await this.#more())) {
        if (mayEnd && pieces.length === 0) return undefined;
        throw broken('it ends in the middle');
      }
      const piece = await this.some(left);
      left -= piece.length;
      pieces.push(piece);
    }
    return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces);
  }

  async skip(bytes: number): Promise<void> {
    for (let left = bytes; left > 0;) left -= (await this.some(left)).length;
  }

  async drain(): Promise<void> {
    while (await this.#more()) this.#rest = Buffer.alloc(0);
  }

  async #more(): Promise<boolean> {
    for (;;) {
      const next = await this.#source.next();
      if (next.done === true) return false;
      if (next.value.length === 0) continue;
      this.#rest = next.value;
      return true;
    }
  }
}

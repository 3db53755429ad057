/** `read`, `write` and `list`: files in a machine's guest, which are NAME:PATH, on this command's own streams. */
import type { Readable } from 'node:stream';
import { AbortError } from '../base/errors.js';
import type { GuestEntry } from '../control/index.js';
import { ask, type AskContext } from './control-commands.js';
import { guestPlace } from './copy-command.js';
import { ExitStatus, statusOfSignal } from './exit-status.js';
import { pumpOutput } from './pump-output.js';
import { table } from './table.js';
import { untilInterrupted } from './until-interrupted.js';
import { UsageError } from './usage-error.js';

/** As much as is written at once. */
const MAX_BYTES = 16 * 1024 * 1024;

/** @throws UsageError */
function placeOf(command: string, text: string): { name: string; path: string } {
  const place = guestPlace(text);
  if (place === undefined) throw new UsageError(`${command}: '${text}' is not in a machine; NAME:PATH is wanted`);
  return { name: place.name, path: place.path === '' ? '/' : place.path };
}

/** The bytes of a file on stdout. */
export function readCommand(place: string, waitMs: number, context: AskContext): Promise<number> {
  const { name, path } = placeOf('read', place);
  return untilInterrupted(context, async (signal) => {
    const bytes = await (await context.world.connect(name, signal)).readFile(path, { signal, waitMs });
    return (await pumpOutput(once(bytes), context.io.stdout)) === 'broken' ? statusOfSignal('SIGPIPE') : ExitStatus.OK;
  });
}

export interface WriteCommandOptions {
  readonly mode: number | undefined;
  readonly append: boolean;
  readonly waitMs: number;
}

/** A file of the bytes on stdin, once all of them are there. */
export function writeCommand(
  place: string,
  { mode, append, waitMs }: WriteCommandOptions,
  context: AskContext,
): Promise<number> {
  const { name, path } = placeOf('write', place);
  return untilInterrupted(context, async (signal) => {
    const machine = await context.world.connect(name, signal);
    const bytes = await allOf(context.io.stdin, signal);
    await machine.writeFile(path, bytes, { append, waitMs, signal, ...(mode !== undefined && { mode }) });
    return ExitStatus.OK;
  });
}

/** What is in a folder, as ls -l has it. */
export function listCommand(place: string, waitMs: number, context: AskContext): Promise<number> {
  const { name, path } = placeOf('list', place);
  return ask(
    name,
    context,
    async (machine, signal) => (await machine.list(path, { signal, waitMs })).map(forJson),
    (entries) => table(entries.map(rowOf)),
  );
}

/** Bytes that JSON can't hold are in base64. */
type JsonEntry = Omit<GuestEntry, 'nameBytes'> & { readonly nameBase64?: string };

function forJson({ nameBytes, ...entry }: GuestEntry): JsonEntry {
  return nameBytes === undefined ? entry : { ...entry, nameBase64: Buffer.from(nameBytes).toString('base64') };
}

const LETTERS: Readonly<Record<GuestEntry['type'], string>> = {
  file: '-',
  directory: 'd',
  link: 'l',
  device: 'c',
  pipe: 'p',
  socket: 's',
  other: '?',
};

function rowOf({ type, mode, sizeBytes, modifiedMs, name }: JsonEntry): string[] {
  const digits = mode.toString(8).padStart(4, '0');
  const modified = new Date(modifiedMs).toISOString().slice(0, 16).replace('T', ' ');
  // What would steer a terminal does not reach it.
  return [`${LETTERS[type]}${digits}`, String(sizeBytes), modified, name.replace(/\p{Control}/gu, '?')];
}

/** Until the end of stdin. @throws UsageError for more than is taken; AbortError */
async function allOf(stdin: Readable, signal: AbortSignal): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const stop = (): void => void stdin.destroy(new AbortError(signal));
  signal.addEventListener('abort', stop, { once: true });
  try {
    for await (const chunk of stdin as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > MAX_BYTES) throw new UsageError(`write: at most ${MAX_BYTES} bytes; cp copies files of any size`);
    }
  } finally {
    signal.removeEventListener('abort', stop);
  }
  return Buffer.concat(chunks);
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(bytes);
}

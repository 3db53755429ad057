/**
 * `cp` between this machine and a guest: tar in the guest, over a command there, and our own tar here. As cp has it: into a folder that
 * is there, else under the new name. Symbolic links are copied as links.
 */
import { lstat, stat } from 'node:fs/promises';
import path from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { LastWords } from '../agent/last-words.js';
import { VmmError } from '../base/errors.js';
import type { CallOptions } from '../machine/index.js';
import type { RemoteRunOptions, RemoteRunResult } from './remote-exec.js';
import { packFiles, unpackFiles, type CopyReport } from './tar-files.js';

/** A machine in whose guest commands can be run. */
export interface CopyMachine {
  readonly name: string;
  run(options: RemoteRunOptions): Promise<RemoteRunResult>;
}

export interface CopyOptions extends CallOptions {
  /** For the agent in the guest. Default 30 000. */
  readonly waitMs?: number;
}

/**
 * Copies a file or folder of the guest here.
 *
 * @param from in the guest; relative to its /
 * @throws VmmError ERR_AGENT, ERR_TIMEOUT; ERR_CONTROL with what tar says, or for what a guest sends that is refused; errors of node:fs
 */
export async function copyOut(
  machine: CopyMachine,
  from: string,
  to: string,
  options: CopyOptions = {},
): Promise<CopyReport> {
  const source = path.posix.resolve('/', from);
  const root = path.posix.basename(source);
  if (root === '') throw new TypeError('cp: the whole of / is not copied; name a folder in it');
  const target = (await isFolder(to)) ? path.join(to, root) : path.resolve(to);
  if (to.endsWith('/') && !(await isFolder(to)))
    throw new VmmError('ERR_CONTROL', `cp: ${to}: there is no such folder`);
  const report: CopyReport = { files: 0, bytes: 0, leftOut: [] };
  const archive = new PassThrough({ highWaterMark: 256 * 1024 });
  const words = new LastWords();
  const argv = ['tar', '-cf', '-', '-C', path.posix.dirname(source), `./${root}`];
  const stop = new AbortController();
  const packed = machine
    .run({ ...limits(options), argv, stdout: archive, stderr: words, signal: either(options.signal, stop.signal) })
    .finally(() => archive.end());
  let lost: Error | undefined;
  packed.catch((reason: unknown) => (lost = reason as Error));
  try {
    await unpackFiles(archive, root, target, report);
  } catch (error) {
    // An archive that is cut has its reason where it comes from.
    if (lost !== undefined) throw lost;
    stop.abort();
    archive.destroy();
    await packed.catch(() => undefined);
    throw error;
  }
  requireSuccess(await packed, `${machine.name}:${source}`, words.text);
  return report;
}

/**
 * Copies a file or folder of this machine into the guest, where it belongs to root.
 *
 * @param to in the guest; relative to its /
 * @throws as copyOut()
 */
export async function copyIn(
  machine: CopyMachine,
  from: string,
  to: string,
  options: CopyOptions = {},
): Promise<CopyReport> {
  const source = path.resolve(from);
  await lstat(source);
  const target = path.posix.resolve('/', to);
  const intoFolder = target === '/' || (await succeeds(machine, ['test', '-d', target], options));
  if (to.endsWith('/') && !intoFolder)
    throw new VmmError('ERR_CONTROL', `cp: ${machine.name}:${to}: there is no such folder`);
  const folder = intoFolder ? target : path.posix.dirname(target);
  const name = intoFolder ? path.basename(source) : path.posix.basename(target);
  const report: CopyReport = { files: 0, bytes: 0, leftOut: [] };
  const words = new LastWords();
  const archive = Readable.from(packFiles(source, name, report), { objectMode: false, highWaterMark: 256 * 1024 });
  const stop = new AbortController();
  let failure: Error | undefined;
  // tar would wait for the rest.
  archive.on('error', (error) => {
    failure ??= error;
    stop.abort();
  });
  const argv = ['tar', '-xf', '-', '-C', folder];
  const signal = either(options.signal, stop.signal);
  try {
    const end = await machine.run({ ...limits(options), argv, stdin: archive, stderr: words, signal });
    if (failure === undefined) requireSuccess(end, `${machine.name}:${target}`, words.text);
  } catch (error) {
    throw failure ?? error;
  } finally {
    archive.destroy();
  }
  if (failure !== undefined) throw failure;
  return report;
}

async function succeeds(machine: CopyMachine, argv: string[], options: CopyOptions): Promise<boolean> {
  const { status } = await machine.run({ ...limits(options), argv, signal: options.signal });
  if (status.kind === 'not-started') throw complaint(machine.name, `${argv[0] ?? ''} can not be run in the guest`);
  return status.kind === 'exited' && status.code === 0;
}

function limits({ waitMs }: CopyOptions): { waitMs?: number } {
  return waitMs === undefined ? {} : { waitMs };
}

function either(signal: AbortSignal | undefined, other: AbortSignal): AbortSignal {
  return signal === undefined ? other : AbortSignal.any([signal, other]);
}

function requireSuccess({ status }: RemoteRunResult, what: string, words: string): void {
  if (status.kind === 'exited' && status.code === 0) return;
  if (status.kind === 'not-started') throw complaint(what, 'there is no tar in the guest that could be run');
  throw complaint(what, words === '' ? 'tar in the guest failed' : words);
}

function complaint(what: string, words: string): VmmError {
  return new VmmError('ERR_CONTROL', `cp ${what}: ${words}`);
}

async function isFolder(where: string): Promise<boolean> {
  try {
    return (await stat(where)).isDirectory();
  } catch {
    return false;
  }
}

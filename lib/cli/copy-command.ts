/** `cp A B`: one of the two is NAME:PATH, in a machine's guest. */
import path from 'node:path';
import type { CommandIo } from '../base/command-io.js';
import { isMachineName } from '../base/machine-name.js';
import { formatSize } from '../base/units.js';
import type { CopyReport } from '../control/index.js';
import { untilInterrupted } from './until-interrupted.js';
import type { ControlWorld } from './control-world.js';
import { ExitStatus } from './exit-status.js';
import { UsageError } from './usage-error.js';

export interface CopyRequest {
  readonly name: string;
  readonly direction: 'in' | 'out';
  readonly from: string;
  readonly to: string;
}

/** A path with a colon in it that is here begins with ./ or /. @throws UsageError */
export function parseCopy(from: string, to: string): CopyRequest {
  const [source, target] = [guestPlace(from), guestPlace(to)];
  if (source !== undefined && target !== undefined) {
    throw new UsageError('cp: one of the two has to be here; copy over here from one guest to another');
  }
  if (source !== undefined) return { name: source.name, direction: 'out', from: source.path, to };
  if (target !== undefined) return { name: target.name, direction: 'in', from, to: target.path };
  throw new UsageError(`cp: neither '${from}' nor '${to}' is in a machine; NAME:PATH is wanted for one of them`);
}

/** NAME:PATH in its parts; undefined for what is none. */
export function guestPlace(text: string): { name: string; path: string } | undefined {
  const colon = text.indexOf(':');
  const name = text.slice(0, Math.max(0, colon));
  return isMachineName(name) ? { name, path: text.slice(colon + 1) } : undefined;
}

export function copyCommand(
  { name, direction, from, to }: CopyRequest,
  options: { readonly json: boolean; readonly quiet: boolean; readonly waitMs: number },
  context: { io: CommandIo; world: ControlWorld },
): Promise<number> {
  const { io, world } = context;
  const here = (local: string): string => `${path.resolve(io.cwd, local)}${local.endsWith('/') ? '/' : ''}`;
  return untilInterrupted(context, async (signal) => {
    const machine = await world.connect(name, signal);
    const how = { signal, waitMs: options.waitMs };
    const report =
      direction === 'in' ? await machine.copyIn(here(from), to, how) : await machine.copyOut(from, here(to), how);
    if (options.json) io.stdout.write(`${JSON.stringify(report)}\n`);
    else if (!options.quiet) io.stderr.write(`vivarium: ${words(report)}\n`);
    return ExitStatus.OK;
  });
}

function words({ files, bytes, leftOut }: CopyReport): string {
  const more = leftOut.length === 0 ? '' : `; ${leftOut.length} devices, sockets or pipes are left out`;
  return `${files} ${files === 1 ? 'file' : 'files'}, ${bytes < 1024 ? `${bytes} B` : formatSize(Math.round(bytes / 1024) * 1024)}${more}`;
}

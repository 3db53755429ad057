/** The options of `restore`, from the texts of the command line to checked values. */
import type { RestoreOptions } from '../machine/index.js';
import { formatNic, type NicChoice, parseNics } from './nic-option.js';
import { type HoldingOptions, type InnerControl, parseHolding, type RawHoldingOptions } from './run-options.js';
import { UsageError } from './usage-error.js';

/** As the option parser gives them. */
export interface RawRestoreOptions extends RawHoldingOptions {
  readonly memory?: string;
  readonly clock?: string;
  readonly nic?: readonly string[];
  readonly forward?: readonly string[];
}

export interface RestoreCommandOptions extends HoldingOptions {
  readonly dir: string;
  readonly memory: NonNullable<RestoreOptions['memory']> | undefined;
  readonly clock: NonNullable<RestoreOptions['clock']> | undefined;
  /** Networks in place of those that the saved machine was on. */
  readonly nics: readonly NicChoice[];
}

/** @throws UsageError naming the option */
export function parseRestoreOptions(dir: string, raw: RawRestoreOptions): RestoreCommandOptions {
  if (dir === '' || dir.includes('\0')) throw new UsageError('restore: the folder of a snapshot is wanted');
  const nics = parseNics(raw.nic ?? [], raw.forward ?? []);
  for (const { id, mac, limits } of nics) {
    if (mac !== undefined) throw new UsageError(`--nic: the guest's '${id}' has the address that it had`);
    if (limits !== undefined) throw new UsageError(`--nic: the guest's '${id}' has the limits that it had`);
  }
  return {
    dir,
    nics,
    memory: oneOf('--memory', raw.memory, ['lazy', 'eager'] as const),
    clock: oneOf('--clock', raw.clock, ['freeze', 'step', 'catch-up'] as const),
    ...parseHolding(raw),
    // A guest that was restored need not say anything: nobody waits for a sign of life.
    stallTimeoutMs: 0,
    command: undefined,
  };
}

/** The command line inside the embedded host. */
export function innerRestoreArguments(
  options: RestoreCommandOptions,
  dir: string,
  { nics, control }: { readonly nics: readonly NicChoice[]; readonly control: InnerControl | undefined },
): string[] {
  const argv = ['restore', '--kvm', 'native'];
  if (options.memory !== undefined) argv.push('--memory', options.memory);
  if (options.clock !== undefined) argv.push('--clock', options.clock);
  for (const nic of nics) argv.push(`--nic=${formatNic({ ...nic, mac: undefined })}`);
  if (control !== undefined) argv.push(`--control=${JSON.stringify(control)}`);
  if (options.quiet) argv.push('--quiet');
  if (options.json) argv.push('--json');
  argv.push(dir);
  return argv;
}

function oneOf<T extends string>(option: string, text: string | undefined, choices: readonly T[]): T | undefined {
  const choice = choices.find((known) => known === text);
  if (text === undefined || choice !== undefined) return choice;
  throw new UsageError(`${option}: '${text}' is none of ${choices.join(', ')}`);
}

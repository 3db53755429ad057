/**
 * The options of `run`, from the texts of the command line to checked values. Only what can be known without looking
 * at this machine is checked here; every error names the option.
 */
import { isMachineName, MACHINE_NAME_RULE } from '../base/machine-name.js';
import { parseSize } from '../base/units.js';
import type { MachineRecord } from '../control/index.js';
import { parseDisks, type DiskChoice } from './disk-option.js';
import { parseNics, type NicChoice } from './nic-option.js';
import type { PolicyName } from '../time/index.js';
import { UsageError } from './usage-error.js';

export type HostWish = 'auto' | 'native' | 'embedded';

/** How a guest is held: where, for how long, under which name, and what is said of it. */
export interface HoldingOptions {
  readonly kvm: HostWish;
  readonly timeoutMs: number | undefined;
  /** How long a guest may show no progress before its first sign of life; 0 for ever. */
  readonly stallTimeoutMs: number;
  readonly quiet: boolean;
  readonly json: boolean;
  /** What others of the user reach it by; undefined for nobody's. */
  readonly name: string | undefined;
  /** In a process of its own, without a terminal. */
  readonly detach: boolean;
  /** Files and folders that this process may change beside what the machine stands on. As the user wrote them. */
  readonly allowPaths: readonly string[];
  /** False: it may do whatever its user may. */
  readonly fence: boolean;
  /** This is that process. */
  readonly isHolder: boolean;
  /** Inside the embedded host: who the machine is outside, and the channel over which it is reached. */
  readonly control: InnerControl | undefined;
  /** What runs in the guest; undefined for the console. */
  readonly command: readonly string[] | undefined;
}

export interface RunOptions extends HoldingOptions {
  readonly kernel: string | undefined;
  readonly initrd: string | undefined;
  /** Replaces the default command line. */
  readonly cmdline: string | undefined;
  readonly append: string | undefined;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly disks: readonly DiskChoice[];
  readonly nics: readonly NicChoice[];
  readonly pit: PolicyName;
  /** The guest finds a port for QEMU's agent. */
  readonly qemuAgent: boolean;
}

export interface InnerControl {
  readonly channel: number;
  /** Another one, over which other networks for its nics are asked for; missing where it has none. */
  readonly networks?: number;
  /** The initramfs is the default one, so it can be asked to start the agent. */
  readonly hasAgent: boolean;
  readonly record: MachineRecord;
}

/** As the option parser gives them: how a guest is held, whatever it is. */
export interface RawHoldingOptions {
  readonly kvm?: string;
  readonly timeout?: string;
  readonly quiet?: boolean;
  readonly json?: boolean;
  readonly name?: string;
  readonly detach?: boolean;
  readonly allowPath?: readonly string[];
  readonly fence?: boolean;
  readonly holder?: boolean;
  readonly control?: string;
}

export interface RawRunOptions extends RawHoldingOptions {
  readonly kernel?: string;
  readonly initrd?: string;
  readonly cmdline?: string;
  readonly append?: string;
  readonly cpus?: string;
  readonly memory?: string;
  readonly disk?: readonly string[];
  readonly nic?: readonly string[];
  readonly forward?: readonly string[];
  readonly pit?: string;
  readonly qemuAgent?: boolean;
  readonly stallTimeout?: string;
}

const POLICIES: readonly PolicyName[] = ['catch-up', 'reinject', 'discard'];
const HOST_WISHES: readonly HostWish[] = ['auto', 'native', 'embedded'];
/** What a timer holds (24 days). */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
/**
 * A boot takes a second on hardware and 10 to 20 in the embedded host, where with `quiet` nothing is heard of it until
 * the end: this is fifteen times that, for a machine that is busy.
 */
export const DEFAULT_STALL_SECONDS = '300';

/** @throws UsageError, or a RangeError or TypeError that names the option. */
export function parseRunOptions(raw: RawRunOptions, command: readonly string[] | undefined): RunOptions {
  if (command?.length === 0) throw new UsageError('after -- a COMMAND is wanted');
  return {
    kernel: path('--kernel', raw.kernel),
    initrd: path('--initrd', raw.initrd),
    cmdline: raw.cmdline,
    append: raw.append,
    cpus: wholeNumber('--cpus', raw.cpus ?? '1'),
    memoryBytes: parseSize(raw.memory ?? '256M', '--memory'),
    disks: parseDisks(raw.disk ?? []),
    nics: parseNics(raw.nic ?? [], raw.forward ?? []),
    pit: oneOf('--pit', raw.pit ?? 'catch-up', POLICIES),
    qemuAgent: raw.qemuAgent ?? false,
    ...parseHolding(raw),
    stallTimeoutMs: seconds('--stall-timeout', raw.stallTimeout ?? DEFAULT_STALL_SECONDS, 'or 0 for never'),
    command,
  };
}

/** @throws UsageError that names the option */
export function parseHolding(raw: RawHoldingOptions): Omit<HoldingOptions, 'stallTimeoutMs' | 'command'> {
  return {
    kvm: oneOf('--kvm', raw.kvm ?? 'auto', HOST_WISHES),
    timeoutMs: raw.timeout === undefined ? undefined : seconds('--timeout', raw.timeout, 'above 0'),
    quiet: raw.quiet ?? false,
    json: raw.json ?? false,
    name: machineName(raw.name),
    detach: raw.detach ?? false,
    allowPaths: allowedPaths(raw),
    fence: raw.fence ?? true,
    isHolder: raw.holder ?? false,
    control: raw.control === undefined ? undefined : (JSON.parse(raw.control) as InnerControl),
  };
}

function allowedPaths({ allowPath = [], detach = false, fence = true }: RawHoldingOptions): readonly string[] {
  for (const each of allowPath) path('--allow-path', each);
  if (allowPath.length > 0 && !detach) throw new UsageError('--allow-path: only the process of -d is fenced');
  if (allowPath.length > 0 && !fence) throw new UsageError('--allow-path: with --no-fence everything is allowed');
  return allowPath;
}

function machineName(name: string | undefined): string | undefined {
  if (name === undefined || isMachineName(name)) return name;
  throw new UsageError(`--name: '${String(name)}' is no name; ${MACHINE_NAME_RULE}`);
}

function path(option: string, value: string | undefined): string | undefined {
  if (value === '') throw new UsageError(`${option}: the name of a file is wanted`);
  if (value?.includes('\0')) throw new UsageError(`${option}: a name with a NUL in it`);
  return value;
}

function wholeNumber(option: string, text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new UsageError(`${option}: '${text}' is not a whole number`);
  const value = Number(text);
  if (value === 0) throw new UsageError(`${option}: at least 1 is wanted`);
  return value;
}

function oneOf<T extends string>(option: string, text: string, choices: readonly T[]): T {
  const choice = choices.find((known) => known === text);
  if (choice === undefined) throw new UsageError(`${option}: '${text}' is none of ${choices.join(', ')}`);
  return choice;
}

function seconds(option: string, text: string, least: 'above 0' | 'or 0 for never'): number {
  const milliseconds = Number(text) * 1000;
  if (!/^\d+(\.\d+)?$/.test(text) || (milliseconds === 0 && least === 'above 0')) {
    throw new UsageError(
      `${option}: '${text}' is not a number of seconds${least === 'above 0' ? ` ${least}` : `, ${least}`}`,
    );
  }
  if (milliseconds > MAX_TIMEOUT_MS) throw new UsageError(`${option}: ${text} seconds are more than 24 days`);
  return Math.ceil(milliseconds);
}

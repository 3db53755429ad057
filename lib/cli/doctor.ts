/**
 * `vivarium doctor`: what this machine can do, each lack with one line that cures it. It looks and changes nothing:
 * nothing is fetched, built or started but the probe guest. Facts come from a DoctorWorld; here they become checks.
 */
import type { CommandIo } from '../base/command-io.js';
import { formatSize, GiB } from '../base/units.js';
import { ExitStatus } from './exit-status.js';

/** What the machine's KVM is and can. */
export interface KvmFacts {
  readonly present: boolean;
  readonly accessible: boolean;
  readonly apiVersion: number | null;
  /** 'AMD', 'Intel', or what the processor calls itself; null when it says nothing. */
  readonly vendor: string | null;
  /** Whether a stock kernel runs on it, as a probe guest found out. */
  readonly linuxGuests: boolean;
  /** Why, in half a sentence. */
  readonly reason: string;
  /** How to come by what is missing, when it is to be had. */
  readonly cure?: string;
}

/** What is missing, by its kernel's name, and what to do about it. */
interface Lack {
  readonly name: string;
  readonly cure: string;
}

/** What snapshots can do here. */
export interface SnapshotFacts {
  /** Of restores that run at once. */
  readonly lazy: Lack | undefined;
  /** Of snapshots in the mode 'instant'. */
  readonly instant: Lack | undefined;
  readonly compresses: boolean;
}

/** What fences the process of a machine that was started with -d. */
export interface FenceFacts {
  /** The program that does it is there. */
  readonly launcher: boolean;
  /** The kernel's version of Landlock; 0: none. */
  readonly landlock: number;
}

export interface DoctorWorld {
  readonly nodeVersion: string;
  /** Why the addon can't be loaded; undefined when it can. */
  addonProblem(): Promise<string | undefined>;
  kvm(): Promise<KvmFacts>;
  /** Undefined where there is no addon to ask. */
  snapshots(): Promise<SnapshotFacts | undefined>;
  fence(): Promise<FenceFacts>;
  /** QEMU for the embedded host; undefined when it is not installed. */
  qemu(): Promise<{ readonly path: string; readonly version: string } | undefined>;
  /** What is in the cache, by name; undefined for what is not. */
  cached(): Promise<{
    readonly kernel: string | undefined;
    readonly initramfs: string | undefined;
    readonly hostImage: string | undefined;
  }>;
  /** The cache folder, which need not exist yet. */
  cacheFolder(): Promise<{ readonly path: string; readonly freeBytes: number; readonly writable: boolean }>;
}

export interface Check {
  readonly name: string;
  readonly ok: boolean;
  /** What was found. */
  readonly found: string;
  /** One line that cures the lack. */
  readonly cure?: string;
}

export interface DoctorReport {
  readonly kvm: Omit<KvmFacts, 'cure'>;
  readonly host: 'native' | 'embedded' | 'none';
  readonly checks: readonly Check[];
}

const MIN_NODE = [20, 19] as const;
/** Kernel, initramfs, and the embedded host's image, with room to build them. */
const WANTED_FREE_BYTES = 2 * GiB;
/** Where the one who looked knew no better. */
const KVM_CURE =
  'modprobe kvm_amd or kvm_intel on a machine that offers virtualization; the embedded KVM host needs none';
const SETUP = 'npm run setup';

export async function examine(world: DoctorWorld): Promise<DoctorReport> {
  const addonProblem = await world.addonProblem();
  const { cure: kvmCure, ...kvm } = await world.kvm();
  const qemu = await world.qemu();
  const cached = await world.cached();
  const folder = await world.cacheFolder();
  const snapshots = await world.snapshots();
  const native = addonProblem === undefined && kvm.accessible && kvm.linuxGuests;
  // Inside the embedded host the same addon runs.
  const embedded = addonProblem === undefined && qemu !== undefined;
  const needsEmbedded = !native;

  const check = (name: string, ok: boolean, found: string, cure?: string): Check =>
    ok || cure === undefined ? { name, ok, found } : { name, ok, found, cure };
  const optional = needsEmbedded ? '' : ' (not needed here)';
  const checks = [
    check('node', isRecent(world.nodeVersion), world.nodeVersion, `install Node ${MIN_NODE.join('.')} or later`),
    check('addon', addonProblem === undefined, addonProblem ?? 'loads', 'npm run build'),
    check('kvm', kvm.present && kvm.accessible, describeKvm(kvm), kvmCure ?? KVM_CURE),
    check(
      'linux-guests',
      kvm.linuxGuests,
      kvm.reason,
      embedded
        ? 'none is needed: the embedded KVM host runs them'
        : `${SETUP} (it installs QEMU for the embedded KVM host)`,
    ),
    check(
      'qemu',
      qemu !== undefined,
      qemu === undefined ? `not installed${optional}` : `${qemu.version}, ${qemu.path}`,
      SETUP,
    ),
    check(
      'kernel',
      cached.kernel !== undefined,
      cached.kernel ?? 'not in the cache yet',
      `${SETUP} (or the first run fetches it)`,
    ),
    check(
      'initramfs',
      cached.initramfs !== undefined,
      cached.initramfs ?? 'not built yet',
      `${SETUP} (or the first run builds it)`,
    ),
    ...(needsEmbedded
      ? [
          check(
            'host-image',
            cached.hostImage !== undefined,
            cached.hostImage ?? 'not built yet',
            `${SETUP} (or the first run builds it)`,
          ),
        ]
      : []),
    check(
      'cache',
      folder.writable && folder.freeBytes >= WANTED_FREE_BYTES,
      `${folder.path}, ${formatSize(folder.freeBytes)} free${folder.writable ? '' : ', may not be written'}`,
      folder.writable
        ? `free ${formatSize(WANTED_FREE_BYTES)}, or set XDG_CACHE_HOME`
        : 'set XDG_CACHE_HOME to a folder of yours',
    ),
    userFaultCheck(snapshots),
    zstdCheck(snapshots),
    fenceCheck(await world.fence()),
  ];
  return { kvm, host: native ? 'native' : embedded ? 'embedded' : 'none', checks };
}

/** None of these keeps a guest from running. */
function userFaultCheck(facts: SnapshotFacts | undefined): Check {
  const name = 'userfaultfd';
  if (facts === undefined) return { name, ok: false, found: 'the addon is needed to tell', cure: 'npm run build' };
  const { lazy, instant } = facts;
  const lack = lazy ?? instant;
  if (lack === undefined) return { name, ok: true, found: 'instant snapshots, lazy restores' };
  const without = [
    ...(instant ? ["instant snapshots (mode 'live' does without)"] : []),
    ...(lazy ? ['lazy restores (eager ones do without)'] : []),
  ];
  return { name, ok: false, found: `no ${without.join(', no ')}: ${lack.name} is missing`, cure: lack.cure };
}

function zstdCheck(facts: SnapshotFacts | undefined): Check {
  const name = 'zstd';
  if (facts === undefined) return { name, ok: false, found: 'the addon is needed to tell', cure: 'npm run build' };
  if (facts.compresses) return { name, ok: true, found: 'libzstd.so.1: snapshots are compressed' };
  const found = 'no libzstd.so.1: snapshots are not compressed, and compressed ones can not be read';
  return { name, ok: false, found, cure: 'apt-get install libzstd1' };
}

function fenceCheck({ launcher, landlock }: FenceFacts): Check {
  const name = 'fence';
  if (!launcher) {
    return { name, ok: false, found: 'no vivarium-fence: processes of -d may do what you may', cure: 'npm run build' };
  }
  if (landlock > 0) return { name, ok: true, found: `Landlock ${landlock}: processes of -d reach their own files` };
  const found = 'no Landlock: processes of -d reach all files that you do';
  return { name, ok: false, found, cure: 'a kernel with CONFIG_SECURITY_LANDLOCK, and landlock in its lsm= list' };
}

/** Prints the report; 0 when guests can run one way or the other, else 1. */
export async function doctorCommand(options: { json: boolean }, io: CommandIo, world: DoctorWorld): Promise<number> {
  const report = await examine(world);
  io.stdout.write(options.json ? `${JSON.stringify(report, null, 2)}\n` : formatReport(report, io));
  return report.host === 'none' ? 1 : ExitStatus.OK;
}

function formatReport(report: DoctorReport, io: CommandIo): string {
  const styled = io.stdoutIsTerminal && (io.env['NO_COLOR'] ?? '') === '';
  const paint = (code: string, text: string): string => (styled ? `\x1b[${code}m${text}\x1b[0m` : text);
  const width = Math.max(...report.checks.map(({ name }) => name.length));
  const lines = report.checks.flatMap(({ name, ok, found, cure }) => [
    `${ok ? paint('32', 'ok  ') : paint('31', 'lack')}  ${name.padEnd(width)}  ${found}`,
    ...(cure === undefined ? [] : [`      ${''.padEnd(width)}  cure: ${cure}`]),
  ]);
  const verdict = {
    native: "Linux guests run on this machine's KVM.",
    embedded: 'Linux guests run in the embedded KVM host.',
    none: 'Linux guests cannot run here yet.',
  };
  return `${lines.join('\n')}\n\n${verdict[report.host]}\n`;
}

function describeKvm(kvm: Omit<KvmFacts, 'cure'>): string {
  if (!kvm.present) return 'there is no /dev/kvm';
  if (!kvm.accessible) return '/dev/kvm may not be opened by this user';
  return `/dev/kvm, API ${kvm.apiVersion ?? 'unknown'}${kvm.vendor === null ? '' : `, ${kvm.vendor}`}`;
}

function isRecent(version: string): boolean {
  const [major = 0, minor = 0] = version.replace(/^v/, '').split('.').map(Number);
  return major > MIN_NODE[0] || (major === MIN_NODE[0] && minor >= MIN_NODE[1]);
}

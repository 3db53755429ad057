/**
 * Finds out what this machine's KVM is good for: opens it, asks it, and runs the probe guest, since no flag tells
 * whether a kernel's ring 0 runs on it. The verdict is kept for the machine's present boot, so that only one run pays.
 * Chooses nothing: who asks decides.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { VmmError } from '../base/errors.js';
import { cacheRoot } from '../base/user-folders.js';
import { Kvm, kvmPath } from '../kvm/index.js';
import { Machine, type LinuxSupport } from '../machine/index.js';
import { LOOP_INSTRUCTIONS, PROBE_ADDRESS, probeImage, STEP_PORT, STEPS } from './probe-guest.js';

/** What `doctor` tells of KVM. */
export interface KvmReport {
  readonly present: boolean;
  readonly accessible: boolean;
  readonly apiVersion: number | null;
  /** 'AMD' or 'Intel' by the kernel's module, 'PVM' for the software-backed one, null when it can't be told. */
  readonly vendor: string | null;
  /** Whether a stock kernel runs on it. */
  readonly linuxGuests: boolean;
  /** Why, in half a sentence. */
  readonly reason: string;
  /** How to come by what is missing, when it is to be had. */
  readonly cure?: string;
}

/** Part of the key of a kept verdict. */
const PROBE_VERSION = 1;
/** Hardware takes under a nanosecond, emulated hardware about ten, a KVM that emulates ring 0 about a thousand. */
const SLOW_NS_PER_INSTRUCTION = 200;
const PROBE_DEADLINE_MS = 10_000;

export interface ProbeOptions {
  /** Probes anew although a verdict is kept. */
  readonly fresh?: boolean;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/**
 * What this machine's KVM can do.
 *
 * @throws VmmError ERR_ADDON_MISSING when the addon is not built. Everything else is an answer, not an error.
 */
export async function probeKvm(options: ProbeOptions = {}): Promise<KvmReport> {
  const path = kvmPath();
  if (!existsSync(path)) {
    return unusable(false, `there is no ${path}`, 'load kvm_amd or kvm_intel, or switch virtualization on');
  }
  let kvm: Kvm;
  try {
    kvm = Kvm.open();
  } catch (error) {
    if (error instanceof VmmError && error.code === 'ERR_ADDON_MISSING') throw error;
    return unusable(true, (error as Error).message, error instanceof VmmError ? error.cure : undefined);
  }
  try {
    return {
      present: true,
      accessible: true,
      apiVersion: kvm.apiVersion(),
      vendor: vendor(),
      ...(await support(options)),
    };
  } finally {
    kvm.close();
  }
}

/** For the machine room, which asks before it boots a kernel. */
export async function linuxSupport(): Promise<LinuxSupport> {
  const { linuxGuests, reason } = await support({});
  return { linuxGuests, reason };
}

async function support(options: ProbeOptions): Promise<LinuxSupport> {
  const env = options.env ?? process.env;
  // There the host's own kernel has hardware virtualization, emulated: it was made for this.
  if (env['VIVARIUM_HOST'] === 'embedded') return { linuxGuests: true, reason: 'this is the embedded KVM host' };
  const file = join(cacheRoot(env), 'probe', `${verdictKey()}.json`);
  const kept = options.fresh === true ? undefined : readVerdict(file);
  if (kept !== undefined) return kept;
  const verdict = await runProbe();
  await keepVerdict(file, verdict);
  return verdict;
}

/** Runs the probe guest; what goes wrong is the answer. */
async function runProbe(): Promise<LinuxSupport> {
  const times: bigint[] = [];
  const stepDevice = {
    name: 'probe',
    read: () => 0xff,
    write: () => void times.push(process.hrtime.bigint()),
    reset: () => undefined,
    inspect: () => ({ steps: times.length }),
  };
  let machine: Machine | undefined;
  try {
    machine = await Machine.create({
      name: 'probe',
      memory: '16MiB',
      boot: { flat: probeImage(), address: PROBE_ADDRESS, mode: 'long64' },
      debugExit: true,
      portDevices: [{ firstPort: STEP_PORT, portCount: 1, device: stepDevice }],
    });
    await machine.start();
    const late = setTimeout(() => void machine?.kill().catch(() => undefined), PROBE_DEADLINE_MS);
    const end = await machine.wait().finally(() => clearTimeout(late));
    return judge(end.reason === 'debug-exit', times);
  } catch (error) {
    return { linuxGuests: false, reason: `a probe guest can't be run on it: ${(error as Error).message}` };
  } finally {
    await machine?.close();
  }
}

/** The verdict on a probe guest that wrote its steps at `times` and then ended, well or not. */
export function judge(reachedEnd: boolean, times: readonly bigint[]): LinuxSupport {
  if (!reachedEnd) {
    const step = STEPS[Math.max(0, times.length - 1)] ?? '';
    return { linuxGuests: false, reason: `a kernel's ring 0 does not run on it: a probe guest stopped at ${step}` };
  }
  const [start, end] = [times[STEPS.indexOf('a counting loop')], times[STEPS.indexOf('the end')]];
  const loopNs = start === undefined || end === undefined ? 0 : Number(end - start);
  const nsPerInstruction = loopNs / LOOP_INSTRUCTIONS;
  if (nsPerInstruction > SLOW_NS_PER_INSTRUCTION) {
    const reason = `it emulates a kernel's ring 0, at ${Math.round(nsPerInstruction)} ns an instruction`;
    return { linuxGuests: false, reason };
  }
  return { linuxGuests: true, reason: 'a probe guest ran its ring 0 on it' };
}

function unusable(present: boolean, reason: string, cure: string | undefined): KvmReport {
  const report = { present, accessible: false, apiVersion: null, vendor: vendor(), linuxGuests: false, reason };
  return cure === undefined ? report : { ...report, cure };
}

function vendor(): string | null {
  const modules = { kvm_amd: 'AMD', kvm_intel: 'Intel', kvm_pvm: 'PVM' };
  for (const [module, name] of Object.entries(modules)) if (existsSync(`/sys/module/${module}`)) return name;
  return null;
}

/** Another boot, another device node or another KVM module may give another answer. */
function verdictKey(): string {
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  const { rdev, ino } = statSync(kvmPath());
  const parts = [PROBE_VERSION, bootId, kvmPath(), rdev, ino, vendor()];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);
}

function readVerdict(file: string): LinuxSupport | undefined {
  try {
    const value = JSON.parse(readFileSync(file, 'utf8')) as Partial<LinuxSupport>;
    if (typeof value.linuxGuests !== 'boolean' || typeof value.reason !== 'string') return undefined;
    return { linuxGuests: value.linuxGuests, reason: value.reason };
  } catch {
    return undefined;
  }
}

/** A verdict that can't be kept is found again: no reason to fail. */
async function keepVerdict(file: string, verdict: LinuxSupport): Promise<void> {
  try {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    const draft = `${file}.${process.pid}`;
    await writeFile(draft, JSON.stringify(verdict), { mode: 0o600 });
    await rename(draft, file);
  } catch {
    // a read-only cache
  }
}

/**
 * QEMU as the embedded host needs it: where it is, what its version allows, and its command line.
 * Decides nothing about when it runs. Why the host is as it is stands in docs/design/0002-embedded-host.md.
 */
import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { totalmem } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { VmmError } from '../base/errors.js';
import { MiB } from '../base/units.js';
import type { HostImage } from './image.js';

const PROGRAM = 'qemu-system-x86_64';

export interface Qemu {
  readonly path: string;
  readonly major: number;
  readonly version: string;
}

/** QEMU's path, undefined when it is not installed; cheap. */
export function findQemu(env: Readonly<Record<string, string | undefined>> = process.env): string | undefined {
  for (const folder of [...(env['PATH'] ?? '').split(':'), '/usr/bin', '/usr/local/bin']) {
    if (folder === '') continue;
    const path = join(folder, PROGRAM);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // not here
    }
  }
  return undefined;
}

/** @throws VmmError ERR_SETUP when QEMU is missing, can't be run, or is older than 7. */
export async function locateQemu(env?: Readonly<Record<string, string | undefined>>): Promise<Qemu> {
  const path = findQemu(env);
  const cure = 'npm run setup';
  if (path === undefined) {
    throw new VmmError('ERR_SETUP', `the embedded host needs ${PROGRAM}, which is not installed`, { cure });
  }
  let text: string;
  try {
    text = (await promisify(execFile)(path, ['--version'])).stdout;
  } catch (error) {
    throw new VmmError('ERR_SETUP', `${path} can't be run: ${(error as Error).message}`, { cause: error, cure });
  }
  const version = /version (\d+)\.(\d+)[.\d]*/.exec(text);
  const major = Number(version?.[1] ?? 0);
  if (major < 7) throw new VmmError('ERR_SETUP', `${path} is too old: ${text.split('\n')[0] ?? ''}`, { cure });
  return { path, major, version: (version?.[0] ?? '').replace('version ', '') };
}

/** The host has one CPU: with two, its kernel dies when it patches its own code (docs/design/0002-embedded-host.md). */
const HOST_CPUS = 1;

/** How much memory the host is given: half of the machine's, at most 8 GiB, taken only as the host touches it. */
export function hostMemoryBytes(machineMemoryBytes = totalmem()): number {
  const half = Math.floor(machineMemoryBytes / 2 / (256 * MiB)) * 256 * MiB;
  return Math.min(Math.max(half, 1024 * MiB), 8192 * MiB);
}

/** File descriptors that QEMU is started with, beside the first three. */
export const PORT_FD = 3;
export const QMP_FD = 4;

/** Nothing that a guest host does not need is set up by the kernel: all of it costs emulated time. */
const KERNEL_WORDS = [
  ...['console=ttyS0', 'quiet', 'panic=-1', 'mitigations=off', 'nokaslr', 'audit=0', 'apparmor=0', 'selinux=0'],
  ...['cryptomgr.notests', 'no_timer_check', 'tsc=reliable', 'nowatchdog', '8250.nr_uarts=1', 'random.trust_cpu=on'],
  ...['rcupdate.rcu_expedited=1', 'rcupdate.rcu_cpu_stall_suppress=1', 'kvm.enable_virt_at_load=0'],
];

export function qemuArguments(image: HostImage, memoryBytes = hostMemoryBytes()): string[] {
  return [
    ...['-name', 'vivarium-host', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-machine', 'q35,usb=off,vmport=off', '-accel', 'tcg,thread=multi,tb-size=512', '-cpu', 'max'],
    ...['-smp', String(HOST_CPUS), '-m', `${memoryBytes / MiB}M`],
    ...['-kernel', image.kernelPath, '-initrd', image.initrdPath, '-append', KERNEL_WORDS.join(' ')],
    ...['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=port,fd=${PORT_FD}`, '-device', 'virtio-serial-pci'],
    ...['-device', 'virtserialport,chardev=port,name=vivarium'],
    ...['-chardev', `socket,id=qmp,fd=${QMP_FD}`, '-mon', 'chardev=qmp,mode=control'],
    // The whole machine, with the rights of the user that started it. multidevs: file systems below it keep apart.
    ...['-fsdev', 'local,id=root,path=/,security_model=none,multidevs=remap'],
    ...['-device', 'virtio-9p-pci,fsdev=root,mount_tag=host'],
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny'],
  ];
}

/**
 * Saves and restores of a fresh Linux guest, inside the embedded host where this machine's KVM can't run that (save-inside.ts): each
 * mode against QEMU's migration to a file, or its background-snapshot; same kernel, initramfs, memory and place, in one
 * run. Only the ratios mean something.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { findQemu } from '#lib/host/index.js';
import { busybox } from '#lib/images/busybox.js';
import { cpioArchive } from '#lib/images/cpio.js';
import { defaultKernel } from '#lib/images/kernel.js';
import { librariesOf } from '#lib/images/libraries.js';
import type { Figures } from './bench.js';
import { GUEST_LIVES, GUEST_MIB, GUEST_UP, SAVE_MODES, type SaveRequest, type SaveResult } from './save-request.js';
import { runInside } from './run-inside.js';
import { pairedRatio, summarise } from './stats.js';

const MIB = 2 ** 20;
const INIT = `echo ${GUEST_UP}
while :; do
  echo ${GUEST_LIVES}
  usleep 50000
done`;

export interface SaveEmbeddedOptions {
  readonly runs: number;
  readonly progress: (line: string) => void;
}

export async function measureSavesEmbedded({ runs, progress }: SaveEmbeddedOptions) {
  const folder = await mkdtemp(path.join(tmpdir(), 'vivarium-bench-'));
  try {
    const kernel = await defaultKernel();
    const initrd = path.join(folder, 'initrd.cpio');
    await writeFile(initrd, await shellInitramfs(INIT));
    const qemu = findQemu();
    if (qemu === undefined) throw new Error('qemu-system-x86_64 is not installed: npm run setup');
    const request: SaveRequest = { kernel: kernel.path, initrd, qemu, libraries: await librariesOf(qemu), runs };
    progress(`${kernel.release}; starting the embedded host`);
    const result = await runInside<SaveResult>('save-inside.js', request);
    return figures(result);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Times against QEMU's: at most a half is to be reached by saves. */
function figures(result: SaveResult): { metrics: Figures; qemu: Figures } {
  const metrics: Record<string, Figures[string]> = {};
  const qemu: Record<string, Figures[string]> = {};
  for (const mode of SAVE_MODES) {
    const name = `linux${mode[0]!.toUpperCase()}${mode.slice(1)}`;
    const [ours, theirs] = [result.vivarium[mode], result.qemu[mode]];
    for (const [figure, text] of [
      ['totalMs', 'SaveTime'],
      ['restoreMs', 'RestoreTime'],
    ] as const) {
      const of = (samples: typeof ours): number[] => samples.map((sample) => sample[figure]);
      metrics[`${name}${text}Ratio`] = pairedRatio(of(ours), of(theirs));
    }
    for (const [of, samples] of [
      [metrics, ours],
      [qemu, theirs],
    ] as const) {
      of[`${name}SaveMiBPerSecond`] = summarise(samples.map(({ totalMs }) => (GUEST_MIB / totalMs) * 1000));
      of[`${name}StopMs`] = summarise(samples.map(({ stopMs }) => stopMs));
      of[`${name}FileMiB`] = summarise(samples.map(({ bytes }) => bytes / MIB));
      of[`${name}RestoreMs`] = summarise(samples.map(({ restoreMs }) => restoreMs));
    }
  }
  return { metrics, qemu };
}

/** A shell and nothing else; `script` is its init, which has all of the shell's commands. */
async function shellInitramfs(script: string): Promise<Uint8Array> {
  const init = `#!/bin/busybox sh\n/bin/busybox mkdir /sbin\n/bin/busybox --install -s /sbin\nexport PATH=/sbin\n${script}\n`;
  return cpioArchive([
    { path: 'bin/busybox', type: 'file', data: await readFile((await busybox()).path), mode: 0o755 },
    { path: 'init', type: 'file', data: Buffer.from(init), mode: 0o755 },
  ]);
}

/**
 * From the start of a command to the first line of userspace, of the same kernel and initramfs with the same console:
 * vivarium against QEMU's microvm and pc machines, quiet and with the full log of the kernel. Where this machine's KVM
 * can't run Linux all of it runs inside the embedded host: the part in lib/boot-inside.ts, with everything it reads
 * copied into that host's memory first. Also what a user waits: the command here, its guest in the embedded host.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { findQemu } from '#lib/host/index.js';
import { busybox } from '#lib/images/busybox.js';
import { cpioArchive } from '#lib/images/cpio.js';
import { defaultKernel } from '#lib/images/kernel.js';
import type { Bench, Figures } from './lib/bench.js';
import { KERNEL_WORDS, MARKER, type InsideRequest, type InsideResult } from './lib/boot-request.js';
import { librariesOf } from '#lib/images/libraries.js';
import { runInside } from './lib/run-inside.js';
import { pairedRatio, summarise } from './lib/stats.js';

const DEFAULT_RUNS = 5;
const PEERS = ['microvm', 'pc'] as const;

export const bench: Bench = {
  name: 'boot',
  stage: 'embedded',
  about: 'command start to the first line of userspace, against QEMU; to reach: no slower than the faster of the two',
  async run({ runs = DEFAULT_RUNS, progress }) {
    const folder = await mkdtemp(path.join(tmpdir(), 'vivarium-bench-'));
    try {
      const kernel = await defaultKernel();
      const initrd = path.join(folder, 'initrd.cpio');
      await writeFile(initrd, await smallInitramfs());
      const qemu = findQemu();
      if (qemu === undefined) throw new Error('qemu-system-x86_64 is not installed: npm run setup');
      const request: InsideRequest = { kernel: kernel.path, initrd, qemu, libraries: await librariesOf(qemu), runs };
      progress(`${kernel.release}; starting the embedded host`);
      const result = await runInside<InsideResult>('boot-inside.js', request);

      const metrics: Record<string, Figures[string]> = {};
      const peers: Record<string, Record<string, Figures[string]>> = { microvm: {}, pc: {} };
      for (const log of ['quiet', 'full'] as const) {
        const samples = result[log];
        metrics[`${log}Ms`] = summarise(samples.vivarium);
        for (const peer of PEERS) {
          peers[peer]![`${log}Ms`] = summarise(samples[peer]);
          metrics[`${log}RatioTo${peer === 'pc' ? 'Pc' : 'Microvm'}`] = pairedRatio(samples.vivarium, samples[peer]);
        }
        const faster = samples.vivarium.map((_, index) => Math.min(samples.microvm[index]!, samples.pc[index]!));
        metrics[`${log}RatioToFaster`] = pairedRatio(samples.vivarium, faster);
        metrics[`${log}CommandHereMs`] = summarise(await commandHere(kernel.path, initrd, log, runs));
      }
      return { metrics, peers, runs };
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
};

/** An initramfs whose init says the marker and resets the machine. */
async function smallInitramfs(): Promise<Uint8Array> {
  const shell = await busybox();
  const init = `#!/bin/busybox sh\n/bin/busybox echo ${MARKER}\n/bin/busybox reboot -f\n`;
  return cpioArchive([
    { path: 'bin/busybox', type: 'file', data: await readFile(shell.path), mode: 0o755 },
    { path: 'init', type: 'file', data: Buffer.from(init), mode: 0o755 },
  ]);
}

/** The command as a user starts it, on this machine, until its line is here. */
async function commandHere(kernel: string, initrd: string, log: 'quiet' | 'full', runs: number): Promise<number[]> {
  const samples: number[] = [];
  for (let round = -1; round < runs; round++) {
    const startedNs = process.hrtime.bigint();
    const cmdline = [...KERNEL_WORDS, ...(log === 'quiet' ? ['quiet'] : [])].join(' ');
    const args = ['run', '--quiet', '--kvm', 'embedded', '--kernel', kernel, '--initrd', initrd, '--cmdline', cmdline];
    const child = spawn(process.execPath, ['dist/command/main.js', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    let tookMs: number | undefined;
    for await (const chunk of child.stdout) {
      text += String(chunk);
      if (tookMs === undefined && text.includes(MARKER)) tookMs = Number(process.hrtime.bigint() - startedNs) / 1e6;
    }
    if (tookMs === undefined) throw new Error(`the command's guest did not reach userspace: ${text.slice(-400)}`);
    if (round >= 0) samples.push(tookMs);
  }
  return samples;
}

/**
 * The network device under stock Linux, inside the embedded host where this machine's KVM can't run that (net-inside.ts): streams of iperf3,
 * small frames and echoes between a guest and the host's end of a tap, against QEMU's virtio-net on the same tap without vhost,
 * same kernel, initramfs and host, in one run, each warmed up. Only the ratios mean something.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { findQemu } from '#lib/host/index.js';
import { debianProgramFiles, IPERF3 } from '#lib/images/debian-programs.js';
import { defaultKernel } from '#lib/images/kernel.js';
import { librariesOf } from '#lib/images/libraries.js';
import type { Figures } from './bench.js';
import { compileNetload, netInitramfs } from './net-image.js';
import { NET_JOBS, type NetContestant, type NetRequest, type NetResult } from './net-request.js';
import { runInside } from './run-inside.js';
import { pairedRatio, summarise } from './stats.js';

export interface EmbeddedOptions {
  readonly runs: number;
  /** How long each job runs. */
  readonly seconds: number;
  readonly progress: (line: string) => void;
}

export async function measureEmbedded({ runs, seconds, progress }: EmbeddedOptions) {
  const folder = await mkdtemp(path.join(tmpdir(), 'vivarium-bench-'));
  try {
    const kernel = await defaultKernel();
    const [program] = await debianProgramFiles(IPERF3);
    const iperf3 = { path: program!.path, libraries: program!.libraries };
    const netload = await compileNetload(folder);
    const initrd = path.join(folder, 'initrd.cpio');
    await writeFile(initrd, await netInitramfs(kernel, netload));
    const qemu = findQemu();
    if (qemu === undefined) throw new Error('qemu-system-x86_64 is not installed: npm run setup');
    const libraries = await librariesOf(qemu);
    const request: NetRequest = { kernel: kernel.path, initrd, qemu, libraries, iperf3, netload, runs, seconds };
    progress(`${kernel.release}; starting the embedded host`);
    const result = await runInside<NetResult>('net-inside.js', request);
    return figures(result);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Costs against QEMU's: at most 1 is to be reached. */
function figures(result: NetResult): { metrics: Figures; peers: Record<string, Figures> } {
  const metrics: Record<string, Figures[string]> = {};
  const peers: Record<string, Figures> = { qemu: {} };
  for (const job of NET_JOBS) {
    const of = (contestant: NetContestant) => {
      const samples = result[contestant][job];
      return {
        timeUs: samples.map(({ perSecond, roundTripUs }) => roundTripUs ?? 1e6 / perSecond),
        cpuUs: samples.map(({ cpuUs }) => cpuUs),
      };
    };
    const ours = of('vivarium');
    const theirs = of('qemu');
    metrics[`${job}TimeRatio`] = pairedRatio(ours.timeUs, theirs.timeUs);
    metrics[`${job}CpuRatio`] = pairedRatio(ours.cpuUs, theirs.cpuUs);
    Object.assign(metrics, costs(job, ours));
    Object.assign(peers['qemu']!, costs(job, theirs));
  }
  return { metrics, peers };
}

/** Of a stream for a kilobit. */
function costs(job: string, of: { timeUs: readonly number[]; cpuUs: readonly number[] }): Figures {
  const rate = { [`${job}PerSecond`]: summarise(of.timeUs.map((us) => 1e6 / us)) };
  const time = job === 'ping' ? { pingRoundTripUs: summarise(of.timeUs) } : rate;
  return { ...time, [`${job}CpuUs`]: summarise(of.cpuUs) };
}

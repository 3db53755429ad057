/**
 * fio in a Debian guest on a virtio disk whose file is in the page cache: vivarium against QEMU's virtio-blk with
 * aio=threads and with aio=io_uring, same kernel, initramfs, disk and host, in one run, each warmed up. All of it runs inside the embedded
 * host where this machine's KVM can't run Linux (lib/fio-inside.ts). Only the ratios mean something there.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { findQemu } from '#lib/host/index.js';
import { defaultKernel } from '#lib/images/kernel.js';
import type { Bench, Figures } from './lib/bench.js';
import { fioInitramfs } from './lib/fio-image.js';
import { FIO_CONTESTANTS, FIO_JOBS, type FioRequest, type FioResult } from './lib/fio-request.js';
import { librariesOf } from '#lib/images/libraries.js';
import { runInside } from './lib/run-inside.js';
import { pairedRatio, summarise } from './lib/stats.js';

const DEFAULT_RUNS = 3;
const DEFAULT_SECONDS = 4;

export const bench: Bench = {
  name: 'fio',
  stage: 'embedded',
  about: "fio on a virtio disk against QEMU's; to reach: at least its requests a second, at most its CPU time for each",
  async run({ runs = DEFAULT_RUNS, seconds = DEFAULT_SECONDS, progress }) {
    const folder = await mkdtemp(path.join(tmpdir(), 'vivarium-bench-'));
    try {
      const kernel = await defaultKernel();
      const initrd = path.join(folder, 'initrd.cpio');
      await writeFile(initrd, await fioInitramfs(kernel, seconds));
      const qemu = findQemu();
      if (qemu === undefined) throw new Error('qemu-system-x86_64 is not installed: npm run setup');
      const libraries = await librariesOf(qemu);
      const request: FioRequest = { kernel: kernel.path, initrd, qemu, libraries, runs, seconds };
      progress(`${kernel.release}; starting the embedded host`);
      const result = await runInside<FioResult>('fio-inside.js', request);
      return { ...figures(result), runs };
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
};

/** Costs against each of QEMU's ways, and against the better of the two in each round: at most 1 is to be reached. */
function figures(result: FioResult): { metrics: Figures; peers: Record<string, Figures> } {
  const metrics: Record<string, Figures[string]> = {};
  const peers: Record<string, Record<string, Figures[string]>> = {};
  for (const { name } of FIO_JOBS) {
    const of = (contestant: (typeof FIO_CONTESTANTS)[number]) => ({
      timeUs: result[contestant][name]!.map(({ perSecond }) => 1e6 / perSecond),
      cpuUs: result[contestant][name]!.map(({ cpuUs }) => cpuUs),
    });
    const ours = of('vivarium');
    metrics[`${name}PerSecond`] = summarise(ours.timeUs.map((us) => 1e6 / us));
    metrics[`${name}CpuUs`] = summarise(ours.cpuUs);
    const peersOfJob = FIO_CONTESTANTS.slice(1).map((peer) => ({ peer, theirs: of(peer) }));
    const better = (cost: 'timeUs' | 'cpuUs') =>
      ours[cost].map((_, round) => Math.min(...peersOfJob.map(({ theirs }) => theirs[cost][round]!)));
    metrics[`${name}TimeRatioToBetter`] = pairedRatio(ours.timeUs, better('timeUs'));
    metrics[`${name}CpuRatioToBetter`] = pairedRatio(ours.cpuUs, better('cpuUs'));
    for (const { peer, theirs } of peersOfJob) {
      const figure = `${name}To${peer[0]!.toUpperCase()}${peer.slice(1)}`;
      metrics[`${figure}TimeRatio`] = pairedRatio(ours.timeUs, theirs.timeUs);
      metrics[`${figure}CpuRatio`] = pairedRatio(ours.cpuUs, theirs.cpuUs);
      peers[peer] ??= {};
      peers[peer][`${name}PerSecond`] = summarise(theirs.timeUs.map((us) => 1e6 / us));
      peers[peer][`${name}CpuUs`] = summarise(theirs.cpuUs);
    }
  }
  return { metrics, peers };
}

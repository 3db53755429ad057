/** An initramfs that runs fio on /dev/vda. */
import { FIO } from '#lib/images/debian-programs.js';
import type { KernelImage } from '#lib/images/kernel.js';
import { FIO_JOBS, FIO_WARM_UP_SECONDS, type FioJob } from './fio-request.js';
import { benchInitramfs } from './initramfs.js';

export async function fioInitramfs(kernel: KernelImage, seconds: number): Promise<Uint8Array> {
  return benchInitramfs({ kernel, init: initScript(seconds), programs: FIO });
}

/** Fields 8 and 49 of fio's terse format, version 3: requests a second of reads and of writes. */
function initScript(seconds: number): string {
  const command = (job: Omit<FioJob, 'name'>, runtime = seconds): string =>
    [
      'fio --minimal --name=job --filename=/dev/vda --direct=1 --ioengine=libaio --norandommap --randrepeat=1',
      `--rw=${job.rw} --bs=${job.blockBytes} --iodepth=${job.depth} --runtime=${runtime} --time_based --size=100%`,
      '2> /dev/console',
    ].join(' ');
  const warmUp = command({ rw: 'randrw', blockBytes: 4096, depth: 4 }, FIO_WARM_UP_SECONDS);
  return [
    '#!/bin/sh',
    'export PATH=/bin:/sbin:/usr/bin:/usr/sbin',
    'mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev',
    'mkdir -p /dev/shm; mount -t tmpfs tmpfs /dev/shm',
    'modprobe -qa virtio_pci virtio_blk',
    `${warmUp} > /dev/null`,
    ...FIO_JOBS.flatMap((job, index) => [
      `echo "FIO-BEGINS ${index}"`,
      `line=$(${command(job)} | tail -n 1)`,
      `echo "FIO-ENDS ${index} $(echo "$line" | cut -d';' -f${job.rw.endsWith('read') ? 8 : 49})"`,
    ]),
    'reboot -f',
    '',
  ].join('\n');
}

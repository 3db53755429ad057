/**
 * An initramfs that goes through the loads of the net program against the host's end of its network: iperf3 of Debian's
 * package, and netload, which is compiled here for guest and host alike.
 */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import type { KernelImage } from '#lib/images/kernel.js';
import { benchInitramfs, type PackagedProgram } from './guest-image.js';
import { NET_GUEST_ADDRESS, NET_HOST_ADDRESS, NET_JOBS, NET_WARM_UP_SECONDS, type NetJob } from './net-request.js';

export interface NetImageOptions {
  readonly kernel: KernelImage;
  readonly iperf3: PackagedProgram;
  readonly netload: string;
  readonly seconds: number;
}

export async function netInitramfs({ kernel, iperf3, netload, seconds }: NetImageOptions): Promise<Uint8Array> {
  return await benchInitramfs(kernel, initScript(seconds), [iperf3], [netload]);
}

/** netload in `folder`. @throws Error without a C compiler. */
export async function compileNetload(folder: string): Promise<string> {
  const output = path.join(folder, 'netload');
  const flags = ['-std=gnu11', '-static', '-O2', '-s', '-Wall', '-Wextra', '-Werror', '-o', output];
  await promisify(execFile)('cc', [...flags, path.resolve('bench/native/netload.c')]);
  return output;
}

/** What runs in the guest for a job; its last line is what counts. */
function command(job: NetJob, seconds: number): string {
  // The line of the receiver: ... NUMBER Kbits/sec receiver
  const stream = (options: string) =>
    `iperf3 -c ${NET_HOST_ADDRESS} -t ${seconds} -f k ${options} | sed -n 's|.* \\([0-9.]*\\) Kbits/sec.*receiver.*|\\1|p'`;
  switch (job) {
    case 'streamOut':
      return stream('');
    case 'streamIn':
      return stream('-R');
    case 'packetsOut':
      return `netload send eth0 ${seconds}`;
    case 'packetsIn':
      return `netload count eth0 ${seconds}`;
    case 'ping':
      return `netload ping ${NET_HOST_ADDRESS} ${seconds}`;
  }
}

function initScript(seconds: number): string {
  return [
    '#!/bin/sh',
    'export PATH=/bin:/sbin:/usr/bin:/usr/sbin',
    'mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev',
    'mkdir -p /tmp; mount -t tmpfs tmpfs /tmp',
    'modprobe -qa virtio_pci virtio_net',
    'echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6',
    `ip link set lo up; ip addr add ${NET_GUEST_ADDRESS}/24 dev eth0; ip link set eth0 up`,
    ...NET_JOBS.flatMap((job) => [
      `echo "NET-WARMS ${job}"`,
      `${command(job, NET_WARM_UP_SECONDS)} > /dev/null 2> /dev/console`,
    ]),
    ...NET_JOBS.flatMap((job) => [
      'sleep 1',
      `echo "NET-BEGINS ${job}"`,
      `line=$(${command(job, seconds)} 2> /dev/console | tail -n 1)`,
      `echo "NET-ENDS ${job} $line"`,
    ]),
    'reboot -f',
    '',
  ].join('\n');
}

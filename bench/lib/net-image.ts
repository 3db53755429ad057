/**
 * An initramfs that goes through the loads of the net program against the host's end of its network: iperf3 of Debian's
 * package, and netload, which is compiled here for guest and host alike.
 */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { IPERF3 } from '#lib/images/debian-programs.js';
import type { KernelImage } from '#lib/images/kernel.js';
import { benchInitramfs } from './initramfs.js';
import { NET_JOBS, NET_READY, type NetJob } from './net-request.js';

export async function netInitramfs(kernel: KernelImage, netload: string): Promise<Uint8Array> {
  return benchInitramfs({ kernel, init: INIT, programs: IPERF3, statics: [netload] });
}

/** netload in `folder`. @throws Error without a C compiler. */
export async function compileNetload(folder: string): Promise<string> {
  const output = path.join(folder, 'netload');
  const flags = ['-std=gnu11', '-static', '-O2', '-s', '-Wall', '-Wextra', '-Werror', '-o', output];
  await promisify(execFile)('cc', [...flags, path.resolve('bench/native/netload.c')]);
  return output;
}

/** What runs in the guest for a job; its last line is what counts. */
const COMMANDS: Readonly<Record<NetJob, string>> = {
  streamOut: stream(''),
  streamIn: stream('-R'),
  packetsOut: 'netload send eth0 $seconds',
  packetsIn: 'netload count eth0 $seconds',
  ping: 'netload ping $host $seconds',
};

/** Takes the number out of the receiver's line: ... NUMBER Kbits/sec receiver */
function stream(options: string): string {
  const number = "sed -n 's|.* \\([0-9.]*\\) Kbits/sec.*receiver.*|\\1|p'";
  return `iperf3 -c $host -t $seconds -f k ${options} | ${number}`;
}

const INIT = [
  '#!/bin/sh',
  'export PATH=/bin:/sbin:/usr/bin:/usr/sbin',
  'mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev',
  'mkdir -p /tmp; mount -t tmpfs tmpfs /tmp',
  'modprobe -qa virtio_pci virtio_net',
  'for which in default all; do echo 1 > /proc/sys/net/ipv6/conf/$which/disable_ipv6; done',
  'ip link set lo up',
  `echo ${NET_READY}`,
  'while read job seconds host; do',
  '  case $job in',
  '    net) ip addr add $seconds/24 dev eth0; ip link set eth0 up; echo "NET-ENDS net 0"; continue ;;',
  ...NET_JOBS.map((job) => `    ${job}) line=$(${COMMANDS[job]} | tail -n 1) ;;`),
  '    *) break ;;',
  '  esac',
  '  echo "NET-ENDS $job $line"',
  'done',
  'reboot -f',
  '',
].join('\n');

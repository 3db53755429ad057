/**
 * Two stock guests with the programs that people use: iperf3 and a flood of pings both ways, offloads switched by ethtool;
 * then one connection that goes on while the networks behind it change. Prints what it saw as JSON.
 *
 *   one  net0 -- the switch `lan`, or a recorder around it, or tap `vva` --+-- net0  two      The kernel routes between the taps, each of
 *        net1 -- passt, or another switch                                                   which has the other guest's address.
 *
 * It makes taps and routes: it must run where the network is its own.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Machine, networkSwitch, passt, recordedNetwork, tap } from 'vivarium';
import { GuestShell } from './guest-shell.mjs';

const IPERF_BYTES = 2 ** 20;
const PINGS = 200;
/** Frames that reach the other guest over each network of those that follow one another. */
const FRAMES_EACH = 20;
const PASST_BYTES = 200_000;
const MACS = ['02:00:00:00:00:0a', '02:00:00:00:00:0b'];
const ADDRESSES = ['10.9.0.1', '10.9.0.2'];
const { kernel, initrd, tools, busybox, folder, rounds, isEmbedded } = JSON.parse(process.argv[2]);
const onHost = (script) =>
  execFileSync('sh', ['-ec', `ip() { '${busybox}' ip "$@"; }\n${script}`], { encoding: 'utf8' });

/** passt wants an address, a default route, a user to become, and a root that is a mount, which that of an initramfs is not. */
function makeHost() {
  onHost(`for tap in vva vvb; do '${busybox}' tunctl -t $tap > /dev/null; done
    ip link set vva address ${MACS[1]}; ip link set vvb address ${MACS[0]}
    ip link set lo up; ip link set vva up; ip link set vvb up
    ip addr add 192.0.2.1/24 dev vva; ip route add default via 192.0.2.2 dev vva
    ip route add ${ADDRESSES[0]} dev vva; ip route add ${ADDRESSES[1]} dev vvb
    echo 1 > /proc/sys/net/ipv4/ip_forward
    for tap in all vva vvb; do echo 0 > /proc/sys/net/ipv4/conf/$tap/rp_filter; done
    for tap in vva vvb; do echo 1 > /proc/sys/net/ipv4/conf/$tap/proxy_arp; done`);
  if (!isEmbedded) return;
  if (!readFileSync('/etc/passwd', 'utf8').includes('nobody:'))
    appendFileSync('/etc/passwd', 'nobody:x:65534:65534::/:\n');
  mkdirSync('/run/root', { recursive: true });
  mkdirSync('/run/bin', { recursive: true });
  const inRoot = 'mount -o rbind / /run/root && cd /run/root && mount -o move . / && exec chroot . /usr/bin/passt "$@"';
  writeFileSync('/run/bin/passt', `#!/bin/sh\nexec unshare -m sh -c '${inRoot}' sh "$@"\n`, { mode: 0o755 });
  process.env.PATH = `/run/bin:${process.env.PATH}`;
}

const unmakeHost = () => onHost(`for tap in vva vvb; do '${busybox}' tunctl -d $tap > /dev/null; done`);

const [lan, other] = [networkSwitch('lan'), networkSwitch('other')];
const networks = [
  { name: 'tap', ends: [tap('vva'), tap('vvb')] },
  { name: 'recorder', ends: [recordedNetwork(lan, join(folder, 'lan.pcap')), lan] },
  { name: 'switch', ends: [lan, lan] },
];
const machine = (name, index, more) =>
  Machine.create({
    name,
    memory: '160MiB',
    boot: { kernel, initrd: [initrd, tools], cmdline: 'console=ttyS0 panic=-1 quiet vivarium.dhcp=off' },
    nics: [{ id: 'net0', backend: lan, mac: MACS[index] }, ...more],
  });
const calls = (vm, name) => vm.device('net0').contract.functions[name].calls;
const hashOf = (text) => /[0-9a-f]{64}/.exec(text)?.[0];
/** Sends the same bytes again and again over one connection until /tmp/go-NAME has gone; its checksum is in /tmp/sum-NAME. */
const sendWhile = (name, address, port) => `
  touch /tmp/go-${name}; mkfifo /tmp/pipe-${name}; sha256sum < /tmp/pipe-${name} > /tmp/sum-${name} &
  { while [ -e /tmp/go-${name} ]; do cat /tmp/data; done; } | tee /tmp/pipe-${name} | nc ${address} ${port} > /dev/null &`;

const report = {};
let machines = [];
try {
  makeHost();
  machines = [await machine('one', 0, [{ id: 'net1', backend: passt() }]), await machine('two', 1, [])];
  const [one, two] = machines;
  const shells = [];
  for (const vm of machines) {
    await vm.start();
    shells.push(await GuestShell.ready(vm));
  }
  for (const [index, shell] of shells.entries()) {
    await shell.run(`ip addr add ${ADDRESSES[index]}/24 dev eth0; head -c 100000 /dev/urandom > /tmp/data`);
  }
  await shells[0].run('ip addr add 10.0.2.15/24 dev eth1');
  await shells[1].run('iperf3 -s -D; until grep -q ":1451 .* 0A " /proc/net/tcp /proc/net/tcp6; do usleep 50000; done');

  report.pings = [];
  for (const way of [0, 1]) {
    // By its path, or the shell takes its own.
    const said = await shells[way].run(`/bin/ping -f -q -c ${PINGS} ${ADDRESSES[1 - way]}`);
    report.pings.push(/(\d+) packets transmitted, (\d+) received/.exec(said)?.slice(1).map(Number));
  }

  /** Bytes that arrived from one, and from two. */
  const iperf = async () => {
    const arrived = [];
    for (const way of ['', '-R']) {
      // Not all of the report: the console is slow.
      const text = await shells[0].run(
        `iperf3 -J -i 0 -c ${ADDRESSES[1]} -n ${IPERF_BYTES} ${way} > /tmp/report; sed -n '/"sum_received"/,/}/p' /tmp/report`,
      );
      arrived.push(Number(/"bytes":\s*(\d+)/.exec(text)?.[1]));
    }
    return arrived;
  };
  report.iperf = {};
  for (const state of ['off', 'on']) {
    const lists = [];
    for (const shell of shells) {
      await shell.run(
        `ethtool -K eth0 tx ${state} tso ${state} gso ${state} gro ${state} rx-gro-hw ${state} > /dev/null`,
      );
      lists.push(await shell.run('ethtool -k eth0 | grep -E "tx-checksumming|tcp-segmentation-offload|rx-gro-hw"'));
    }
    const before = calls(one, 'send-segments');
    const arrived = await iperf();
    const isOn = (list, feature) => new RegExp(`^\\s*${feature}: on`, 'm').test(list);
    const features = ['tx-checksumming', 'tcp-segmentation-offload', 'rx-gro-hw'];
    const on = lists.map((list) => features.filter((feature) => isOn(list, feature)));
    report.iperf[state] = { on, arrived, segmented: calls(one, 'send-segments') > before };
  }

  // One connection between the guests, over every network in turn; and what goes on beside it on the other nic.
  await shells[1].run('{ { sleep 1000 | nc -l -p 5000; } | sha256sum > /tmp/sum; } &');
  await shells[1].run('until grep -q ":1388 .* 0A " /proc/net/tcp /proc/net/tcp6; do usleep 50000; done');
  await shells[0].run(sendWhile('lan', ADDRESSES[1], 5000));
  report.over = [];
  for (let round = 0; round < rounds; round++) {
    for (const { name, ends } of networks) {
      await Promise.all([one, two].map((vm, index) => vm.device('net0').rebind(ends[index])));
      const before = calls(two, 'receive');
      while (calls(two, 'receive') < before + FRAMES_EACH) await delay(20);
      report.over.push(name);
    }
    for (const network of [other, passt()]) await one.device('net1').rebind(network);
  }

  // A connection over passt, which goes on when the link was down; the one between the guests hears nothing of it.
  const taken = { bytes: 0, onData: () => {} };
  const server = createServer().listen(0, '127.0.0.1');
  const overPasst = new Promise((resolve) => {
    server.once('connection', (socket) => {
      const hash = createHash('sha256');
      socket.on('data', (chunk) => {
        hash.update(chunk);
        taken.bytes += chunk.length;
        taken.onData();
      });
      socket.on('end', () => resolve(hash.digest('hex')));
    });
  });
  await once(server, 'listening');
  const more = async () => {
    const wanted = taken.bytes + PASST_BYTES;
    while (taken.bytes < wanted) await new Promise((resolve) => (taken.onData = resolve));
  };
  await shells[0].run(sendWhile('passt', '10.0.2.2', server.address().port));
  await more();
  report.links = [];
  for (const up of [false, true]) {
    one.device('net1').setLink(up);
    await shells[0].run(`until [ "$(cat /sys/class/net/eth1/carrier)" = ${up ? 1 : 0} ]; do usleep 50000; done`);
    report.links.push(up);
  }
  await more();
  const sent = await shells[0].run('rm /tmp/go-*; while pidof nc > /dev/null; do usleep 50000; done; cat /tmp/sum-*');
  const got = [await shells[1].run('killall sleep; wait; cat /tmp/sum'), await overPasst];
  // Of the connection between the guests, and of that over passt.
  const sums = sent.match(/[0-9a-f]{64}/g);
  report.arrived = got.map((text, index) => hashOf(text) === sums[index]);
  server.close();
  report.rebinds = [one, two].map((vm) => vm.device('net0').contract.rebinds);
  server.close();
  report.proxies = [one, two].map((vm) => vm.inspect().pci.functions.map(({ device }) => device));
  for (const vm of [one, two]) vm.console.write('poweroff\n');
  report.reasons = (await Promise.all([one.wait(), two.wait()])).map(({ reason }) => reason);
  console.log(JSON.stringify(report));
} finally {
  await Promise.all(machines.map((vm) => vm.close()));
  unmakeHost();
}

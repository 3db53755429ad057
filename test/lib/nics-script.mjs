/**
 * Two stock guests on one switch: addresses by DHCP, pings and TCP both ways, large packets, offloads off and on, all of it
 * again while the networks behind the devices change, and a link that goes and comes. Prints what it saw as JSON.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Machine, networkSwitch, recordedNetwork } from 'vivarium';
import { GuestShell } from './guest-shell.mjs';

const MTU_BYTES = 9000;
const SENT_BYTES = 2_000_000;
/** Frames that go over each network of those that follow one another. */
const FRAMES_EACH = 20;
const { kernel, initrd, tools, folder, rebinds } = JSON.parse(process.argv[2]);
const [lan, other] = ['lan', 'other'].map((name) => networkSwitch(name, { mtuBytes: MTU_BYTES }));
const recorded = recordedNetwork(lan, join(folder, 'lan.pcap'));

const machine = (name, append) =>
  Machine.create({
    name,
    memory: '128MiB',
    boot: { kernel, initrd: [initrd, tools], cmdline: `console=ttyS0 panic=-1 quiet ${append}` },
    nics: [{ id: 'net0', backend: lan }],
  });

const FEATURES = ['tx-checksum-ip-generic', 'tx-tcp-segmentation', 'tx-tcp6-segmentation', 'rx-gro-hw'];
const SETTLED = 'until [ "$(cat /sys/class/net/eth0/carrier)" = LINK ]; do usleep 50000; done';

/** The shell says more, of jobs that ended. */
const sumIn = (text) => /[0-9a-f]{64}/.exec(text)?.[0];

/** The bytes of the longest packet of a record, and how many there are. */
function packetsOf(path) {
  const bytes = readFileSync(path);
  let [longest, count] = [0, 0];
  for (let at = 24; at + 16 <= bytes.length; at += 16 + bytes.readUInt32LE(at + 8), count++) {
    longest = Math.max(longest, bytes.readUInt32LE(at + 8));
  }
  return { longest, count };
}

const [one, two] = [await machine('one', 'vivarium.dhcp=off'), await machine('two', '')];
const report = {};
try {
  await one.start();
  const first = await GuestShell.ready(one);
  await first.run(`
    ip addr add 10.9.0.1/24 dev eth0; mkdir -p /var/lib/misc; touch /var/lib/misc/udhcpd.leases
    printf '%s\\n' 'start 10.9.0.2' 'end 10.9.0.2' 'interface eth0' 'option subnet 255.255.255.0' \
      'option router 10.9.0.1' 'option dns 10.9.0.1' 'option domain example.test' > /etc/udhcpd.conf
    udhcpd -S /etc/udhcpd.conf`);
  await two.start();
  const second = await GuestShell.ready(two);
  report.addresses = (await second.run('ip -4 -o addr show dev eth0')).split(/\s+/);
  report.routes = (await second.run('ip route')).split('\n').map((line) => line.trim());
  report.resolver = await second.run('cat /etc/resolv.conf');
  report.mtu = await second.run('cat /sys/class/net/eth0/mtu');

  const [toTwo, toOne] = [
    { from: first, to: second, address: '10.9.0.2' },
    { from: second, to: first, address: '10.9.0.1' },
  ];
  /** What is lost, in percent; all of it is no failure. */
  const ping = async ({ from, address }, bytes, limits = '-c 3') =>
    /(\d+)% packet loss/.exec(await from.run(`ping -q ${limits} -s ${bytes} ${address} || :`))[1];
  report.losses = [];
  for (const way of [toTwo, toOne])
    for (const bytes of [56, MTU_BYTES - 28]) report.losses.push(await ping(way, bytes));

  for (const shell of [first, second]) await shell.run(`head -c ${SENT_BYTES} /dev/urandom > /tmp/data; sync`);
  /** The receiver's stdin stays open, or its nc would end at once. */
  const transfer = async ({ from, to, address }) => {
    await to.run('{ sleep 1000 | nc -l -p 5000; } > /tmp/in &');
    await to.run('until grep -q ":1388 .* 0A " /proc/net/tcp /proc/net/tcp6; do usleep 50000; done');
    const sent = sumIn(await from.run(`nc ${address} 5000 < /tmp/data; sha256sum < /tmp/data`));
    const came = sumIn(await to.run('killall sleep; wait; sha256sum < /tmp/in'));
    return sent !== undefined && sent === came;
  };
  report.transfers = [await transfer(toTwo), await transfer(toOne)];

  report.offloads = {};
  const segments = () => one.device('net0').contract.functions['send-segments'].calls;
  for (const state of ['off', 'on']) {
    const lists = [];
    for (const shell of [first, second]) lists.push(await shell.run(`offloads eth0 ${state} ${FEATURES.join(' ')}`));
    const before = segments();
    const arrived = [await transfer(toTwo), await transfer(toOne)];
    const on = lists.map((list) => FEATURES.filter((feature) => list.split('\n').includes(feature)));
    report.offloads[state] = { on, arrived, segmented: segments() > before };
  }

  for (const vm of [one, two]) await vm.device('net0').rebind(vm === one ? recorded : lan);
  for (const shell of [first, second])
    await shell.run('ip link set eth0 mtu 1500; echo 45 > /proc/sys/net/ipv4/tcp_min_tso_segs');
  report.recordedTransfer = await transfer(toTwo);
  await one.device('net0').rebind(lan);
  report.packets = packetsOf(join(folder, 'lan.pcap'));

  let isDone = false;
  const load = (async () => {
    const arrived = [];
    while (!isDone || arrived.length < 2) arrived.push(await transfer(arrived.length % 2 === 0 ? toTwo : toOne));
    return arrived;
  })();
  const sends = () => one.device('net0').contract.functions.send.calls;
  for (report.changes = 0; report.changes < rebinds; report.changes++) {
    const way = [other, recorded, lan][report.changes % 3];
    await one.device('net0').rebind(way);
    await two.device('net0').rebind(way === recorded ? lan : way);
    // What TCP lost meanwhile it sends again: on with the next when some of it went over this one.
    const before = sends();
    while (sends() < before + FRAMES_EACH) await delay(20);
  }
  for (const vm of [one, two]) await vm.device('net0').rebind(lan);
  isDone = true;
  report.whileRebound = await load;

  await first.run('killall udhcpd');
  report.links = [];
  for (const up of [false, true]) {
    two.device('net0').setLink(up);
    await second.run(SETTLED.replace('LINK', up ? '1' : '0'), { timeoutMs: 60_000 });
    report.links.push(await ping(toTwo, 56, up ? '-c 3' : '-c 1 -W 2'));
  }
  report.contracts = [one, two].map((vm) => vm.device('net0').contract);
  report.proxies = [one, two].map((vm) => vm.inspect().pci.functions.map(({ device }) => device));
  report.lent = [one, two].map((vm) => vm.inspect().lent.devices.net0);
  for (const vm of [one, two]) vm.console.write('poweroff\n');
  report.reasons = (await Promise.all([one.wait(), two.wait()])).map(({ reason }) => reason);
  console.log(JSON.stringify(report));
} finally {
  await Promise.all([one.close(), two.close()]);
}

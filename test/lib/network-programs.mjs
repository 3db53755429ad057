/**
 * Two stock guests with the programs that people use: iperf3 and a flood of pings both ways, offloads switched by ethtool;
 * then one connection that goes on while the networks behind it change. Prints what it saw as JSON.
 *
 *   one  net0 -- the switch `lan`, or a recorder around it, or tap `vva` --+-- net0  two      The kernel routes between the taps, each of
 *        net1 -- passt, or another switch                                                   which has the other guest's address.
 * At the end both are on tap `vvc`, which they share and the host takes back for a while.
 *
 * It makes taps and routes: it must run where the network is its own.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Machine, networkSwitch, passt, recordedNetwork, sharedNetwork, tap } from 'vivarium';
import { GuestShell } from './guest-shell.mjs';
import { makePasstHost, onHost, unmakeTaps } from './own-passt.mjs';

/** Frames that reach the other guest over each network of those that follow one another. */
const FRAMES_EACH = 20;
const MACS = ['02:00:00:00:00:0a', '02:00:00:00:00:0b'];
const ADDRESSES = ['10.9.0.1', '10.9.0.2'];
/** On the tap that they share: the guest `one`, and the host. */
const SHARED_ADDRESSES = ['10.8.0.1', '10.8.0.254'];
const SHARED_PINGS = 5;
const { kernel, initrd, tools, busybox, folder, rounds, iperfBytes, pings, isEmbedded } = JSON.parse(process.argv[2]);
const TAPS = ['vva', 'vvb', 'vvc'];

function makeHost() {
  // A run that was broken off leaves its own.
  unmakeTaps(busybox, TAPS);
  makePasstHost({ busybox, tap: 'vva', isEmbedded });
  onHost(
    busybox,
    `for tap in vvb vvc; do '${busybox}' tunctl -t $tap > /dev/null; ip link set $tap up; done
    ip link set vva address ${MACS[1]}; ip link set vvb address ${MACS[0]}
    ip route add ${ADDRESSES[0]} dev vva; ip route add ${ADDRESSES[1]} dev vvb
    ip addr add ${SHARED_ADDRESSES[1]}/24 dev vvc
    echo 1 > /proc/sys/net/ipv4/ip_forward
    for tap in all vva vvb vvc; do echo 0 > /proc/sys/net/ipv4/conf/$tap/rp_filter; done
    for tap in vva vvb; do echo 1 > /proc/sys/net/ipv4/conf/$tap/proxy_arp; done`,
  );
}

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
/** Sends the same bytes again and again over one connection until /tmp/go has gone; their checksum is in /tmp/sum. */
const sendWhile = (address, port) => `
  touch /tmp/go; mkfifo /tmp/pipe; sha256sum < /tmp/pipe > /tmp/sum &
  { while [ -e /tmp/go ]; do cat /tmp/data; done; } | tee /tmp/pipe | nc ${address} ${port} > /dev/null &`;

const report = {};
/** For whoever waits in vain. */
const at = (what) => process.stderr.write(`${Math.round(performance.now() / 1000)} s: ${what}\n`);
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
  await shells[1].run('iperf3 -s -D; until grep -q ":1451 .* 0A " /proc/net/tcp /proc/net/tcp6; do usleep 50000; done');

  at('the guests are up');
  /** Sent and received, each way. */
  const flood = async () => {
    const counts = [];
    for (const way of [0, 1]) {
      // By its path, or the shell takes its own.
      const said = await shells[way].run(`/bin/ping -f -q -c ${pings} ${ADDRESSES[1 - way]}`);
      counts.push(/(\d+) packets transmitted, (\d+) received/.exec(said)?.slice(1).map(Number));
    }
    return counts;
  };
  /** Bytes from one, and from two: sent, and received, as far as they had been read when the sender was done. */
  const iperf = async () => {
    const [sent, received] = [[], []];
    for (const way of ['', '-R']) {
      // Not all of the report: the console is slow.
      const text = await shells[0].run(
        `iperf3 -J -i 0 -c ${ADDRESSES[1]} -n ${iperfBytes} ${way} > /tmp/report; grep -A 4 '"sum_' /tmp/report | grep bytes`,
      );
      const [out, back] = [...text.matchAll(/"bytes":\s*(\d+)/g)].map((match) => Number(match[1]));
      sent.push(out);
      received.push(back);
    }
    return { sent, received };
  };
  const features = ['tx-checksumming', 'tcp-segmentation-offload', 'rx-gro-hw'];
  /** Which of them each guest has on, once all were switched. */
  const switchOffloads = async (state) => {
    const on = [];
    for (const shell of shells) {
      await shell.run(
        `ethtool -K eth0 tx ${state} tso ${state} gso ${state} gro ${state} rx-gro-hw ${state} > /dev/null`,
      );
      const list = await shell.run(`ethtool -k eth0 | grep -E '${features.join('|')}'`);
      on.push(features.filter((feature) => new RegExp(`^\\s*${feature}: on`, 'm').test(list)));
    }
    return on;
  };
  const iperfWith = async (state) => {
    const on = await switchOffloads(state);
    const before = calls(one, 'send-segments');
    const bytes = await iperf();
    return { on, ...bytes, segmented: calls(one, 'send-segments') > before };
  };
  /** To the network that follows; its name. Never to the one they are on: a tap is not opened while it is in use. */
  let turn = 0;
  const move = async () => {
    const { name, ends } = networks[turn++ % networks.length];
    await Promise.all(machines.map((vm, index) => vm.device('net0').rebind(ends[index])));
    return name;
  };
  /** At the guest `two`, or there is nothing more to wait for. */
  const framesArrive = async ({ since = calls(two, 'receive'), isOver = () => false } = {}) => {
    while (!isOver() && calls(two, 'receive') < since + FRAMES_EACH) await delay(20);
  };

  report.pings = await flood();
  at('pings are done');
  report.iperf = { off: await iperfWith('off'), on: await iperfWith('on') };
  at('iperf3 is done');

  /** The networks follow one another for as long as the work takes, each left when frames have arrived over it. */
  const whileNetworksChange = async (work) => {
    const first = turn;
    let isDone = false;
    const result = work().finally(() => (isDone = true));
    // Its failure is thrown below, when the networks stand still.
    result.catch(() => {});
    while (!isDone) {
      await move();
      await framesArrive({ isOver: () => isDone });
    }
    return { changes: turn - first, result: await result };
  };
  report.changing = {};
  const works = { pings: flood, off: () => iperfWith('off'), on: () => iperfWith('on') };
  for (const [name, work] of Object.entries(works)) {
    report.changing[name] = await whileNetworksChange(work);
    at(`${name}: done while the networks changed ${report.changing[name].changes} times`);
  }

  // One connection between the guests, over every network in turn, while the other nic has others too.
  await shells[1].run('{ { sleep 1000 | nc -l -p 5000; } | sha256sum > /tmp/sum; } &');
  await shells[1].run('until grep -q ":1388 .* 0A " /proc/net/tcp /proc/net/tcp6; do usleep 50000; done');
  await shells[0].run(sendWhile(ADDRESSES[1], 5000));
  report.over = [];
  for (let round = 0; round < rounds; round++) {
    for (let each = 0; each < networks.length; each++) {
      const name = await move();
      await framesArrive();
      report.over.push(name);
      at(`over ${name}`);
    }
    for (const network of [other, passt()]) await one.device('net1').rebind(network);
  }

  at('the networks have changed');
  const shared = sharedNetwork(tap('vvc'));
  await Promise.all([one, two].map((vm) => vm.device('net0').rebind(shared.guest())));
  await shells[0].run(`ip addr add ${SHARED_ADDRESSES[0]}/24 dev eth0`);
  /** Echoes of the host, while the connection between the guests goes on over the same port. */
  const answers = async (count) => {
    const said = await shells[0].run(`/bin/ping -q -c ${count} -i 0.2 ${SHARED_ADDRESSES[1]}; true`);
    return Number(/(\d+) received/.exec(said)?.[1]);
  };
  const sentMeanwhile = async (action) => {
    const since = calls(two, 'receive');
    const result = await action();
    await framesArrive({ since });
    return result;
  };
  report.hostAnswers = { before: await sentMeanwhile(() => answers(SHARED_PINGS)) };
  await shared.takeBack();
  report.hostAnswers.takenBack = await sentMeanwhile(() => answers(SHARED_PINGS));
  await shared.giveBack();
  report.hostAnswers.after = await sentMeanwhile(() => answers(SHARED_PINGS));
  at('the host has had its tap back');
  const sent = await shells[0].run('rm /tmp/go; while pidof nc > /dev/null; do usleep 50000; done; cat /tmp/sum');
  report.arrived = hashOf(await shells[1].run('killall sleep; wait; cat /tmp/sum')) === hashOf(sent);
  at('all has arrived');
  report.rebinds = [one, two].map((vm) => vm.device('net0').contract.rebinds);
  report.proxies = [one, two].map((vm) => vm.inspect().pci.functions.map(({ device }) => device));
  for (const vm of [one, two]) vm.console.write('poweroff\n');
  report.reasons = (await Promise.all([one.wait(), two.wait()])).map(({ reason }) => reason);
  console.log(JSON.stringify(report));
} finally {
  await Promise.all(machines.map((vm) => vm.close()));
  unmakeTaps(busybox, TAPS);
}

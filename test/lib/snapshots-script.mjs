/**
 * Stock guests saved while they run, and their clones. `work`: a guest under load of disk and network, kept by its agent, saved in
 * all three ways; each snapshot's clone goes on over its own disk. `clones`: a guest with a shell, two clones of one snapshot, with
 * other clocks. Prints what it saw as JSON.
 */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { fileDisk, Machine, networkSwitch } from 'vivarium';
import { AgentClient } from '#lib/agent/client.js';
import { GuestShell } from './guest-shell.mjs';

const { scene, kernel, initrd, modes } = JSON.parse(process.argv[2]);
const folder = mkdtempSync(join(tmpdir(), 'vivarium-snapshots-'));
const inFolder = (name) => join(folder, name);
const note = (text) => process.stderr.write(`${Math.round(performance.now())} ms: ${text}\n`);

const create = (append, more = {}) =>
  Machine.create({
    memory: '128MiB',
    boot: { kernel, initrd, cmdline: `console=ttyS0 panic=-1 quiet ${append}` },
    ...more,
  });

/** The host end of a guest's agent, which ends with the guest. */
function connect(vm) {
  const client = new AgentClient(vm.channel);
  void vm.wait().then((end) => {
    const { reason, detail = '' } = end;
    note(`it ended: ${reason} ${detail}`);
    client.close(new Error(`the guest ended: ${reason} ${detail}`));
  });
  return client;
}

/** A command's output. @throws Error with it when the command fails. */
async function run(client, command) {
  const pieces = [];
  const taking = () => new Writable({ write: (bytes, _, done) => done(void pieces.push(bytes)) });
  const { status } = await client.run({ argv: ['sh', '-c', command], stdout: taking(), stderr: taking() });
  const text = Buffer.concat(pieces).toString().trimEnd();
  if (status.code !== 0) throw new Error(`'${command}' ended with ${JSON.stringify(status)}:\n${text}`);
  return text;
}

/**
 * Writes 128 KiB at one of 16 places of a disk, reads it back past the cache, compares; every place once more at the end. Beside it
 * one nic is pinged from the other, which stands in a network namespace of its own.
 */
const WORK = `
unshare -n sleep 100000 & until [ -n "$(pidof sleep)" ]; do usleep 10000; done
inside() { nsenter -n -t "$(pidof sleep)" "$@"; }
ip link set eth1 netns "$(pidof sleep)"
ip addr add 10.0.0.1/24 dev eth0; inside ip link set eth1 up; inside ip addr add 10.0.0.2/24 dev eth1
ping 10.0.0.2 > /tmp/pings &
round=0 bad=0
while [ ! -e /tmp/stop ]; do
  place=$((round % 16)) round=$((round + 1))
  head -c 131072 /dev/urandom > /tmp/chunk
  sum=$(sha256sum < /tmp/chunk)
  dd if=/tmp/chunk of=/dev/vda bs=128k seek=$place conv=notrunc,fsync 2> /dev/null || bad=$((bad + 1))
  echo "$sum" > /tmp/sum.$place
  echo 3 > /proc/sys/vm/drop_caches
  [ "$(dd if=/dev/vda bs=128k skip=$place count=1 2> /dev/null | sha256sum)" = "$sum" ] || bad=$((bad + 1))
  echo $round > /tmp/rounds
done
echo 3 > /proc/sys/vm/drop_caches
for file in /tmp/sum.*; do
  read -r sum < $file
  [ "$(dd if=/dev/vda bs=128k skip=\${file##*.} count=1 2> /dev/null | sha256sum)" = "$sum" ] || bad=$((bad + 1))
done
echo "$round $bad" > /tmp/ended; mv /tmp/ended /tmp/result`;

const until = (condition) => `until ${condition}; do usleep 20000; done`;
const after = (rounds) => until(`{ read -r n < /tmp/rounds; } 2> /dev/null && [ "$n" -gt ${rounds} ]`);
const END = `touch /tmp/stop; ${until('[ -e /tmp/result ]')}; cat /tmp/result; dmesg | grep -ciE 'i/o error|lockup|stall' || :`;

async function work() {
  const raw = inFolder('disk.img');
  writeFileSync(raw, '');
  truncateSync(raw, 4 * 2 ** 20);
  const nics = (name) => ({ a: networkSwitch(name), b: networkSwitch(name) });
  const lan = nics('lan');
  const vm = await create('vivarium.agent vivarium.dhcp=off', {
    disks: [{ id: 'disk', backend: fileDisk(raw) }],
    nics: Object.keys(lan).map((id) => ({ id, backend: lan[id] })),
  });
  const report = { saved: [], clones: [] };
  try {
    const client = connect(vm);
    await vm.start();
    await client.ready();
    note('up');
    const session = client.run({ argv: ['sh', '-c', WORK] }).then(({ status }) => status);
    for (const mode of modes) {
      await run(client, after(3 * report.saved.length));
      const { stats, dir } = await vm.snapshot(inFolder(mode), { mode, maxPauseMs: 60_000 });
      note(`${mode}: ${JSON.stringify(stats)}`);
      report.saved.push({ dir, before: Number(await run(client, 'cat /tmp/rounds')) });
    }
    const [rounds, bad, errors] = (await run(client, END)).split(/\s/).map(Number);
    report.original = { rounds, bad, errors, session: await session };
    report.end = await ended(vm, () => client.requestPower('POWEROFF'));
  } finally {
    await vm.close();
  }
  for (const { dir } of report.saved)
    report.clones.push(await workOfClone(dir, nics(dir.slice(-20).replaceAll('/', '-'))));
  delete report.saved;
  return report;
}

async function workOfClone(dir, nics) {
  const clone = await Machine.restore(dir, { overrides: { nics } });
  try {
    note(`restored ${dir}`);
    const client = connect(clone);
    const { release } = await client.readyAsClone({ wallMs: Date.now });
    note(`its agent is there, of Linux ${release}`);
    // What its agent had been running runs still.
    const saved = Number(await run(client, 'cat /tmp/rounds'));
    await run(client, after(saved + 2));
    const replies = 'grep -c "bytes from" /tmp/pings';
    const before = Number(await run(client, `${replies} || :`));
    await run(client, until(`[ "$(${replies})" -gt ${before} ]`));
    const [rounds, bad, errors] = (await run(client, END)).split(/\s/).map(Number);
    const clock = await compareClocks(() => run(client, 'date +%s'));
    const random = await run(client, 'head -c 32 /dev/urandom | sha256sum');
    const reason = await ended(clone, () => client.requestPower('POWEROFF'));
    note(`${rounds} rounds, clock ${JSON.stringify(clock)}`);
    return { isOn: rounds > saved, bad, errors, clock, random, reason };
  } finally {
    await clone.close();
  }
}

/** How far the guest's clock is behind this host's at least, and ahead of it at least, whatever the question took; in whole seconds. */
async function compareClocks(ask) {
  const before = Math.floor(Date.now() / 1000);
  const guest = Number(await ask());
  return { behindS: before - guest, aheadS: guest - Math.floor(Date.now() / 1000) };
}

async function clones() {
  const vm = await create('');
  const report = { clones: [] };
  let dir;
  try {
    await vm.start();
    const shell = await GuestShell.ready(vm);
    await shell.run('(n=0; while :; do n=$((n+1)); echo $n > /tmp/count; usleep 20000; done) > /dev/null 2>&1 &');
    ({ dir } = await vm.snapshot(inFolder('one'), { mode: 'live', maxPauseMs: 60_000 }));
    report.state = vm.state;
    report.original = await look(shell);
    report.release = await shell.run('uname -r');
  } finally {
    await vm.close();
  }
  for (const [memory, clock] of [
    ['lazy', 'step'],
    ['eager', 'freeze'],
  ]) {
    const clone = await Machine.restore(dir, { memory, clock });
    try {
      note(`restored with ${memory} memory`);
      const shell = new GuestShell(clone);
      const seen = await look(shell);
      seen.reason = await ended(clone, () => clone.console.write('poweroff\n'));
      report.clones.push(seen);
    } finally {
      await clone.close();
    }
  }
  return report;
}

/** Random numbers first of all: they are to differ from the start. */
async function look(shell) {
  const random = (await shell.run('head -c 32 /dev/urandom | sha256sum')).split(' ')[0];
  const count = Number(await shell.run('cat /tmp/count'));
  await shell.run(until(`[ "$(cat /tmp/count)" -gt ${count} ]`));
  const clock = await compareClocks(() => shell.run('date +%s'));
  const source = await shell.run('cat /sys/devices/system/clocksource/clocksource0/current_clocksource');
  const log = await shell.run('dmesg | grep -iE "crng|lockup|stall|unstable|clocksource: timekeeping" || :');
  return { random, clock, source, log: log.split('\n').map((line) => line.replace(/^\[[^\]]*\] /, '')) };
}

async function ended(vm, ask) {
  ask();
  return (await vm.wait()).reason;
}

try {
  console.log(JSON.stringify(await { work, clones }[scene]()));
} finally {
  rmSync(folder, { recursive: true, force: true });
}

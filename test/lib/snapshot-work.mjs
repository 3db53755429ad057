/**
 * A stock guest under load of disk and network, kept by its agent, saved in all three ways; each snapshot's clone goes on over its own
 * disk. Prints what it saw as JSON. (snapshot-series.mjs has more load, and more snapshots.)
 */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileDisk, Machine, networkSwitch } from 'vivarium';
import { compareClocks, connect, ended, note, run, until } from './agent-guest.mjs';

const { kernel, initrd, modes } = JSON.parse(process.argv[2]);
const folder = mkdtempSync(join(tmpdir(), 'vivarium-snapshots-'));
const inFolder = (name) => join(folder, name);

const create = (append, more = {}) =>
  Machine.create({
    memory: '128MiB',
    boot: { kernel, initrd, cmdline: `console=ttyS0 panic=-1 quiet ${append}` },
    ...more,
  });

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
    for (const [index, mode] of modes.entries()) {
      await run(client, after(3 * report.saved.length));
      const { stats, dir } = await vm.snapshot(inFolder(`${index}-${mode}`), { mode, maxPauseMs: 60_000 });
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

try {
  console.log(JSON.stringify(await work()));
} finally {
  rmSync(folder, { recursive: true, force: true });
}

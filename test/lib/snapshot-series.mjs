/**
 * A stock guest that works on two disks and two networks and compiles, kept by its agent, saved one time after another while it does;
 * then each snapshot's clone goes on over disks of its own. Prints what it saw as JSON.
 *
 *   eth0 -- passt -- a server of this process      eth1 -- the switch `lan` -- eth2, in a network namespace of its own
 *   vda: own bytes, read back past the cache       vdb: fio, crc32c
 *
 * passt must find its network here, and a tap is made for it: it must run where the network is its own.
 */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileDisk, Machine, networkSwitch, passt } from 'vivarium';
import { compareClocks, connect, ended, note, run, until } from './agent-guest.mjs';
import { makePasstHost, unmakeTaps } from './own-passt.mjs';

const TAP = 'vvp';
const LINE = 'as long as it lasts\n';
/** Lines of the stream at once, and the pause between two of these: the guest reads it byte by byte. */
const STREAM = { lines: 20, everyMs: 100 };
const { modes, kernel, initrd, fio, compiler, busybox, isEmbedded } = JSON.parse(process.argv[2]);
const folder = mkdtempSync(join(tmpdir(), 'vivarium-series-'));
const inFolder = (name) => join(folder, name);

/** Each kind of work counts its rounds in /tmp/NAME.rounds and what was wrong in /tmp/NAME.bad, until there is a file /tmp/stop. */
const KINDS = ['disk', 'fio', 'compile', 'stream', 'ping'];
const work = (port) => `
cd /tmp
count() { echo $round > $1.new; mv $1.new $1.rounds; echo $bad > $1.bad; }
for name in ${KINDS.join(' ')}; do echo 0 > $name.rounds; echo 0 > $name.bad; done

disk() {
  round=0 bad=0
  while [ ! -e stop ]; do
    place=$((round % 16)) round=$((round + 1))
    head -c 131072 /dev/urandom > chunk
    sum=$(sha256sum < chunk)
    dd if=chunk of=/dev/vda bs=128k seek=$place conv=notrunc,fsync 2> /dev/null || bad=$((bad + 1))
    echo "$sum" > sum.$place
    echo 3 > /proc/sys/vm/drop_caches
    [ "$(dd if=/dev/vda bs=128k skip=$place count=1 2> /dev/null | sha256sum)" = "$sum" ] || bad=$((bad + 1))
    count disk
  done
  echo 3 > /proc/sys/vm/drop_caches
  for file in sum.*; do
    read -r sum < $file
    [ "$(dd if=/dev/vda bs=128k skip=\${file##*.} count=1 2> /dev/null | sha256sum)" = "$sum" ] || bad=$((bad + 1))
  done
  count disk
}

fios() {
  round=0 bad=0
  while [ ! -e stop ]; do
    fio --name=verify --filename=/dev/vdb --rw=randwrite --bs=4k --size=512k --direct=1 --ioengine=psync --verify=crc32c \
      --verify_state_save=0 > fio.log 2>&1 || { bad=$((bad + 1)); cp fio.log fio.wrong; }
    round=$((round + 1)); count fio
  done
}

compile() {
  round=0 bad=0 first=
  for number in $(seq 200); do
    echo "int f$number(int *a, int n) { int s = $number; for (int i = 0; i < n; i++) s = s * 31 + a[i] % 7; return s; }"
  done > unit.c
  while [ ! -e stop ]; do
    tcc -nostdinc -c unit.c -o unit.o || bad=$((bad + 1))
    sum=$(sha256sum < unit.o); first=\${first:-$sum}
    [ "$sum" = "$first" ] || bad=$((bad + 1))
    round=$((round + 1)); count compile
  done
}

stream() {
  round=0 bad=0 connections=0
  while [ ! -e stop ]; do
    connections=$((connections + 1)); echo $connections > connections
    tail -f /dev/null | nc 10.0.2.2 ${port} > pipe &
    # The last line of a connection that was cut is no whole one, and read says so.
    while read -r line; do
      [ "$line" = '${LINE.trim()}' ] || bad=$((bad + 1))
      round=$((round + 1)); count stream
    done < pipe
    usleep 50000
  done
}

pings() {
  round=0 bad=0
  while [ ! -e stop ]; do
    ping -c 1 -W 5 10.0.0.2 > /dev/null && round=$((round + 1)); count ping
    usleep 50000
  done
}

mkfifo pipe
unshare -n sleep 100000 & ${until('[ -n "$(pidof sleep)" ]')}
inside() { nsenter -n -t "$(pidof sleep)" "$@"; }
ip link set eth2 netns "$(pidof sleep)"
ip link set eth1 up; ip addr add 10.0.0.1/24 dev eth1; inside ip link set eth2 up; inside ip addr add 10.0.0.2/24 dev eth2
stream & disk & working=$! fios & working="$working $!" compile & working="$working $!" pings & working="$working $!"
wait $working; touch ended`;

const rounds = async (client) => {
  const lines = await run(client, `cd /tmp; for kind in ${KINDS.join(' ')}; do cat $kind.rounds; done`);
  return lines.split('\n').map(Number);
};
/** Until every kind of work has gone on. */
async function goOn(client, before, by) {
  for (let seen = before; seen.some((count, index) => count < before[index] + by); seen = await rounds(client)) {
    note(KINDS.map((kind, index) => `${kind} ${seen[index]}`).join(', '));
    await delay(2000);
  }
}

async function end(client) {
  const words = `cd /tmp; touch stop; ${until('[ -e ended ]')}
    for kind in ${KINDS.join(' ')}; do cat $kind.bad; done; cat connections; dmesg | grep -ciE 'i/o error|lockup|stall' || :`;
  const numbers = (await run(client, words)).split('\n').map(Number);
  const bad = Object.fromEntries(KINDS.map((kind, index) => [kind, numbers[index]]));
  return { bad, connections: numbers.at(-2), errors: numbers.at(-1) };
}

async function original(port) {
  const disks = ['own', 'fio'].map((id) => {
    const path = inFolder(`${id}.img`);
    writeFileSync(path, '');
    truncateSync(path, 4 * 2 ** 20);
    return { id, backend: fileDisk(path) };
  });
  const lan = networkSwitch('lan');
  const vm = await Machine.create({
    memory: '256MiB',
    boot: { kernel, initrd: [initrd, fio, compiler], cmdline: 'console=ttyS0 panic=-1 quiet vivarium.agent' },
    disks,
    nics: [
      { id: 'out', backend: passt() },
      { id: 'a', backend: lan },
      { id: 'b', backend: lan },
    ],
  });
  try {
    const client = connect(vm);
    await vm.start();
    await client.ready();
    note('up');
    const session = client.run({ argv: ['sh', '-c', work(port)] }).then(({ status }) => status);
    session.catch(() => undefined);
    const saved = [];
    for (const [index, mode] of modes.entries()) {
      const before = await run(client, until(`[ -e /tmp/connections ]`)).then(() => rounds(client));
      await goOn(client, before, 1);
      const { dir, stats } = await vm.snapshot(inFolder(`${index}-${mode}`), { mode, maxPauseMs: 60_000 });
      note(`${mode}: ${JSON.stringify(stats)}`);
      saved.push({ dir, before: await rounds(client) });
    }
    await goOn(client, saved.at(-1).before, 1);
    const seen = await end(client);
    await session;
    return { saved, seen: { ...seen, reason: await ended(vm, () => client.requestPower('POWEROFF')) } };
  } finally {
    await vm.close();
  }
}

async function clone({ dir }, index) {
  const lan = networkSwitch(`lan${index}`);
  // As the command does it: the agent sets the calendar, and no task is charged for the gap.
  const vm = await Machine.restore(dir, { clock: 'freeze', overrides: { nics: { a: lan, b: lan } } });
  try {
    note(`restored ${dir}`);
    const client = connect(vm);
    await client.readyAsClone({ wallMs: Date.now });
    const before = await rounds(client);
    // Its connection was the other machine's passt's, which has gone.
    await run(client, 'killall nc');
    await goOn(client, before, 2);
    const clock = await compareClocks(() => run(client, 'date +%s'));
    const seen = await end(client);
    const random = await run(client, 'head -c 32 /dev/urandom | sha256sum');
    note(`clone ${index}: ${JSON.stringify({ before, clock, ...seen })}`);
    return { ...seen, clock, random, reason: await ended(vm, () => client.requestPower('POWEROFF')) };
  } finally {
    await vm.close();
  }
}

const server = createServer((socket) => {
  socket.on('error', () => undefined);
  const timer = setInterval(() => socket.writableNeedDrain || socket.write(LINE.repeat(STREAM.lines)), STREAM.everyMs);
  socket.once('close', () => clearInterval(timer));
});
try {
  unmakeTaps(busybox, [TAP]);
  makePasstHost({ busybox, tap: TAP, isEmbedded });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { saved, seen } = await original(server.address().port);
  const report = { original: seen, clones: [] };
  for (const [index, each] of saved.entries()) report.clones.push(await clone(each, index));
  console.log(JSON.stringify(report));
} finally {
  server.close();
  unmakeTaps(busybox, [TAP]);
  rmSync(folder, { recursive: true, force: true });
}

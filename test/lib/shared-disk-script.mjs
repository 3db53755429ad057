/**
 * Stock guests over one shared disk. First all of them want more than there is, and what each gets of the disk is counted by the disk's own
 * ports; then fio verifies what it reads and writes while the host takes the disk away and gives it back. Prints a report as JSON.
 */
import { fileDisk, Machine, sharedDisk } from 'vivarium';
import { GuestShell } from './guest-shell.mjs';

const { kernel, initrd, tools, base, copy, guests, baseBytes, ownBytes, takeBacks } = JSON.parse(process.argv[2]);
/** Requests in a window that is counted. */
const WINDOW = 360;
/** Requests between one change of the disk and the next. */
const BETWEEN = 2;
/** How often each guest verifies the base, all at once: more than the take-backs take. */
const PASSES = 40;
/** Of one boot or command, on a machine that has others to do. */
const LIMIT_MS = 400_000;

/** The disk, whose requests can be told to end only while everybody waits for it, and how many have ended. */
function watched(source) {
  const watch = { reads: 0, ready: undefined, onRead: undefined };
  const held = [];
  const look = () => {
    while (held.length > 0 && (watch.ready === undefined || watch.ready())) held.shift()();
    if (held.length > 0) setTimeout(look, 1);
  };
  watch.source = {
    ...source,
    open: async (context) => {
      const backend = await source.open(context);
      const read = backend.read.bind(backend);
      backend.read = (offset, data, done) =>
        read(offset, data, (error) => {
          held.push(() => {
            watch.reads++;
            done(error);
            watch.onRead?.();
          });
          if (held.length === 1) look();
        });
      return backend;
    },
  };
  return watch;
}

const disk = watched(fileDisk(base));
const standIn = watched(fileDisk(copy));
// One request at a time: who comes next is the queue's choice each time.
const shared = sharedDisk(disk.source, { depth: 1 });
const counts = () => shared.inspect().guests.map(({ operations, bytes }) => ({ operations, bytes }));
const reads = () => disk.reads + standIn.reads;

/** Resolves after so many more requests. */
function readsMore(number) {
  const until = reads() + number;
  return new Promise((resolve) => {
    disk.onRead = standIn.onRead = () => {
      if (reads() < until) return;
      disk.onRead = standIn.onRead = undefined;
      resolve();
    };
  });
}

const vms = [];
const shells = [];
for (const [index, { weight }] of guests.entries()) {
  vms.push(
    await Machine.create({
      name: `guest-${index}`,
      memory: '128MiB',
      boot: { kernel, initrd: [initrd, tools], cmdline: 'console=ttyS0 panic=-1 quiet' },
      disks: [{ id: 'disk', backend: shared.guest({ weight }), copyOnWrite: 2 * ownBytes }],
    }),
  );
}

const fio = (jobs) =>
  ['fio --thread --filename=/dev/vda --direct=1 --ioengine=libaio --verify_state_save=0', ...jobs].join(' ');
const inAll = (command) =>
  Promise.all(shells.map((shell, index) => shell.run(command(index), { timeoutMs: LIMIT_MS })));
const start = (jobs) => inAll((index) => `${fio(jobs(index))} > /tmp/fio 2>&1 & echo $! > /tmp/pid`);
const end = () => inAll(() => 'kill -INT $(cat /tmp/pid); wait; grep -E "err=|verify:|error" /tmp/fio');

/** What each guest gets in a window in which all have something that waits, or is being done. */
async function shares(blockKiB) {
  await start((index) => [
    `--name=load --rw=randread --norandommap --bs=${blockKiB[index]}k --iodepth=${guests[index].depth}`,
    `--size=${baseBytes} --time_based --runtime=600`,
  ]);
  disk.ready = () => shared.inspect().guests.every(({ queued, inFlight }) => queued + inFlight > 0);
  // The first ones begin alone.
  await readsMore(4 * guests.length);
  const before = counts();
  await readsMore(WINDOW);
  const after = counts();
  disk.ready = undefined;
  await end();
  const part = (name) => after.map((count, index) => count[name] - before[index][name]);
  return { operations: part('operations'), bytes: part('bytes') };
}

try {
  // One after another: together each would take as long as all of them.
  for (const vm of vms) {
    await vm.start();
    shells.push(await GuestShell.ready(vm, { timeoutMs: LIMIT_MS }));
  }
  await inAll(() => 'mkdir -p /dev/shm; mount -t tmpfs tmpfs /dev/shm || true');
  const small = await shares(guests.map(() => 4));
  const unequal = await shares([64, 64, 256]);
  const verify = '--bs=4k --iodepth=4 --verify=crc32c --verify_fatal=1';
  await start(() => [
    // Of what it has not written itself fio verifies each block once.
    `--name=base --rw=randread --norandommap --size=${baseBytes} --numjobs=${PASSES} ${verify}`,
    `--name=own --rw=randwrite --offset=${baseBytes} --size=${ownBytes} --numjobs=1 ${verify} --verify_backlog=16 --time_based --runtime=600`,
  ]);
  await readsMore(BETWEEN);
  const before = { disk: disk.reads, standIn: standIn.reads };
  for (let change = 0; change < takeBacks; change++) {
    await shared.takeBack(standIn.source);
    await readsMore(BETWEEN);
    await shared.giveBack();
    await readsMore(BETWEEN);
  }
  const readsOn = { disk: disk.reads - before.disk, standIn: standIn.reads - before.standIn };
  const words = await end();
  const ioErrors = (await inAll(() => 'dmesg | grep -ci "i/o error" || true')).map(Number);
  const contracts = vms.map((vm) => vm.device('disk').contract);
  const taken = shared.inspect().takeBacks;
  console.log(JSON.stringify({ small, unequal, takeBacks: taken, fio: words, readsOn, ioErrors, contracts }));
} finally {
  await Promise.all(vms.map((vm) => vm.close()));
}

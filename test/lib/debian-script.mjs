/**
 * A real system on lent devices, once through its life: Debian from its own initial RAM disk and a root file system on a
 * virtio disk to a login, its guest agent on a console port, then file systems and checked loads on a second disk whose
 * backend changes all the while, and a power-off. Prints what it saw as JSON.
 */
import { truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { callbackConsole, createQcow2Overlay, faultyDisk, fileDisk, Machine, memoryDisk, qcow2Disk } from 'vivarium';
import { GuestShell } from './guest-shell.mjs';
import { movingDisks } from './moving-disk.mjs';

const MiB = 1024 * 1024;
const DATA = 8 * MiB;
/** Between two changes of the backend, so that the guest gets on. */
const PAUSE_MS = 2000;
const PATIENCE = { timeoutMs: 600_000 };
const { kernel, initrd, image, folder } = JSON.parse(process.argv[2]);

const root = join(folder, 'root.qcow2');
await createQcow2Overlay(root, { backing: image });
const [raw, base, overlay] = ['data.img', 'base.img', 'data.qcow2'].map((name) => join(folder, name));
for (const path of [raw, base]) {
  writeFileSync(path, '');
  truncateSync(path, DATA);
}
await createQcow2Overlay(overlay, { backing: base });
const moving = movingDisks();
const file = moving(fileDisk(raw));
const without = ['flush', 'discard', 'write-zeroes', 'identify', 'resize', 'topology'];
const ways = [moving(qcow2Disk(overlay)), moving(faultyDisk(memoryDisk(DATA), { without })), file];

let said = '';
let onSaid = () => undefined;
const agent = callbackConsole((bytes) => {
  said += Buffer.from(bytes).toString();
  onSaid();
});
async function ask(command) {
  const before = said.length;
  await agent.input(Buffer.from(`${JSON.stringify({ execute: command })}\n`));
  while (!said.slice(before).includes('\n')) await new Promise((resolve) => (onSaid = resolve));
  return JSON.parse(said.slice(before));
}

const startedMs = Date.now();
const marks = {};
const mark = (name) => {
  marks[name] = Math.round((Date.now() - startedMs) / 1000);
  console.error(`${name} after ${marks[name]} s`);
};
/** What the machine says of its disks: why a request failed. */
const complaints = [];
const vm = await Machine.create({
  memory: '512MiB',
  logger: {
    log: (level, message) => {
      if (level === 'warn' || level === 'error') complaints.push(`${level}: ${message}`);
    },
  },
  boot: { kernel, initrd, cmdline: 'root=LABEL=debian-root console=ttyS0 quiet' },
  disks: [
    { id: 'root', backend: qcow2Disk(root, { backingFolders: [dirname(image)] }) },
    { id: 'data', backend: file },
  ],
  consolePorts: [{ id: 'agent', name: 'org.qemu.guest_agent.0', backend: agent }],
});
try {
  await vm.start();
  await vm.console.waitFor(/debian login: /, PATIENCE);
  mark('login');
  vm.console.write('root\n');
  await vm.console.waitFor(/root@debian:~# /, PATIENCE);
  vm.console.write('exec sh\n');
  const shell = await GuestShell.ready(vm, PATIENCE);
  const run = (command) => shell.run(command, PATIENCE);
  const disks = await run('lsblk -dbno NAME,SIZE,SERIAL; findmnt -no SOURCE,FSTYPE /; uname -r');
  const generator = await run('cat /sys/class/misc/hw_random/rng_current; head -c 1000 /dev/hwrng | wc -c');
  await run('systemctl start qemu-guest-agent');
  const answers = { ping: await ask('guest-ping'), osinfo: await ask('guest-get-osinfo') };
  mark('agent');

  let isOver = false;
  let [rebinds, held] = [0, 0];
  const changing = (async () => {
    for (; !isOver; rebinds++) {
      held += (await vm.device('data').rebind(ways[rebinds % ways.length])).held;
      await delay(PAUSE_MS);
    }
    await vm.device('data').rebind(file);
  })();
  const load = '--filename=/dev/vdb --direct=1 --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1';
  const fio = await run(
    `fio --name=mixed --rw=randrw --bsrange=512-32k --size=4m --fsync=64 --verify_backlog=64 ${load} --minimal > /tmp/fio; echo $?` +
      `; fio --name=large --rw=write --bs=1m --size=8m ${load} --minimal > /tmp/fio; echo $?`,
  );
  mark('fio');
  await run('mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt && cp -a /etc/systemd /usr/bin/fio /mnt && umount /mnt');
  await run('fsck.ext4 -fn /dev/vdb && mount /dev/vdb /mnt');
  await run('diff -r --no-dereference /etc/systemd /mnt/systemd && cmp /usr/bin/fio /mnt/fio');
  await run('fstrim /mnt && umount /mnt');
  mark('ext4');
  await run(`blkdiscard -f -z /dev/vdb && cmp -n ${DATA} /dev/vdb /dev/zero && blkdiscard -f /dev/vdb`);
  isOver = true;
  await changing;
  mark('discard');
  const ioErrors = await run('dmesg | grep -ciE "i/o error|ext4-fs error" || true');
  const contracts = { root: vm.device('root').contract, data: vm.device('data').contract };
  vm.console.write('systemctl poweroff\n');
  const { reason } = await vm.wait();
  mark('poweroff');
  const seen = { disks: disks.split('\n').map((line) => line.trim().split(/\s+/)), generator: generator.split('\n') };
  const loads = { fio: fio.split('\n'), rebinds, held, ioErrors: Number(ioErrors), complaints };
  console.log(JSON.stringify({ ...seen, ...answers, ...loads, contracts, reason, marks }));
} catch (error) {
  console.error(`seconds: ${JSON.stringify(marks)}; console:\n${vm.console.text.slice(-4000)}`);
  throw error;
} finally {
  await vm.close();
}

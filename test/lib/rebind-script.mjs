/**
 * A stock guest writes and checks random data on a disk while its backend is changed again and again: a raw file, a
 * qcow2 image, memory without a single native function, each a medium of its own. Prints what came of it as JSON.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2Overlay, faultyDisk, fileDisk, Machine, memoryDisk, qcow2Disk } from 'vivarium';
import { GuestShell } from './guest-shell.mjs';
import { movingDisks } from './moving-disk.mjs';

const MiB = 1024 * 1024;
const SIZE = 4 * MiB;
const { kernel, initrd, folder, rebinds } = JSON.parse(process.argv[2]);

mkdirSync(folder, { recursive: true });
const [raw, base, overlay] = ['disk.img', 'base.img', 'disk.qcow2'].map((name) => join(folder, name));
for (const path of [raw, base]) {
  writeFileSync(path, '');
  truncateSync(path, SIZE);
}
await createQcow2Overlay(overlay, { backing: base });
const moving = movingDisks();
const file = moving(fileDisk(raw));
const without = ['flush', 'discard', 'write-zeroes', 'identify', 'resize', 'topology'];
const bare = moving(faultyDisk(memoryDisk(SIZE), { without }));
const ways = [moving(qcow2Disk(overlay)), bare, file];

const vm = await Machine.create({
  memory: '256MiB',
  boot: { kernel, initrd, cmdline: 'console=ttyS0 panic=-1 quiet' },
  disks: [{ id: 'disk', backend: file }],
});

/** Writes 256 KiB at one of 16 places, reads it back past the cache, compares; every place once more at the end. */
const LOAD = `
load() {
  round=0 bad=0
  while [ ! -e /tmp/stop ]; do
    place=$((round % 16)) round=$((round + 1))
    head -c 262144 /dev/urandom > /tmp/chunk
    sum=$(sha256sum < /tmp/chunk)
    dd if=/tmp/chunk of=/dev/vda bs=256k seek=$place conv=notrunc,fsync 2> /dev/null || bad=$((bad + 1))
    echo "$sum" > /tmp/sum.$place
    echo 3 > /proc/sys/vm/drop_caches
    [ "$(dd if=/dev/vda bs=256k skip=$place count=1 2> /dev/null | sha256sum)" = "$sum" ] || bad=$((bad + 1))
  done
  echo 3 > /proc/sys/vm/drop_caches
  for file in /tmp/sum.*; do
    read -r sum < $file
    [ "$(dd if=/dev/vda bs=256k skip=\${file##*.} count=1 2> /dev/null | sha256sum)" = "$sum" ] || bad=$((bad + 1))
  done
  echo "$round $bad"
}`;

try {
  await vm.start();
  const shell = await GuestShell.ready(vm);
  await shell.run(LOAD);
  await shell.run('load > /tmp/result &');
  let [held, longestHoldNs] = [0, 0];
  for (let change = 0; change < rebinds; change++) {
    const report = await vm.device('disk').rebind(ways[change % ways.length]);
    held += report.held;
    longestHoldNs = Math.max(longestHoldNs, report.holdNs - report.drainNs);
  }
  // Whatever came last, the end is on the file.
  await vm.device('disk').rebind(file);
  const [rounds, bad] = (await shell.run('touch /tmp/stop; wait; cat /tmp/result')).split(' ').map(Number);
  const kernelLog = await shell.run('dmesg | grep -ci "i/o error" || true');
  const inGuest = (await shell.run('sha256sum < /dev/vda')).split(' ')[0];
  const { contract } = vm.device('disk');
  vm.console.write('poweroff\n');
  const { reason } = await vm.wait();
  const onHost = createHash('sha256').update(readFileSync(raw)).digest('hex');
  console.log(
    JSON.stringify({
      rounds,
      bad,
      ioErrors: Number(kernelLog),
      isSame: inGuest === onHost,
      held,
      longestHoldNs,
      contract,
      reason,
    }),
  );
} finally {
  await vm.close();
}

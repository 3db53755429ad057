/**
 * A machine that is ended by SIGKILL while its guest writes: numbered blocks, each flushed on two disks and then reported
 * on the console, beside a load that is not flushed. What was reported is in `reports` when this process dies.
 */
import { appendFileSync } from 'node:fs';
import { fileDisk, Machine, qcow2Disk } from 'vivarium';
import { GuestShell } from './guest-shell.mjs';

const { kernel, initrd, raw, qcow2, reports, blocks } = JSON.parse(process.argv[2]);

const vm = await Machine.create({
  memory: '256MiB',
  boot: { kernel, initrd, cmdline: 'console=ttyS0 panic=-1 quiet' },
  disks: [
    { id: 'raw', backend: fileDisk(raw) },
    { id: 'qcow2', backend: qcow2Disk(qcow2) },
  ],
});
await vm.start();
const shell = await GuestShell.ready(vm);
await shell.run('head -c 1048576 /dev/urandom > /tmp/noise');
vm.console.write(`
unflushed() {
  at=8
  while :; do
    for disk in vda vdb; do dd if=/tmp/noise of=/dev/$disk bs=1M seek=$at conv=notrunc 2> /dev/null; done
    at=$((at % 24 + 8))
  done
}
unflushed &
n=0
while n=$((n + 1)); do
  yes "block $n" | head -c 4096 > /tmp/block
  for disk in vda vdb; do dd if=/tmp/block of=/dev/$disk bs=4096 seek=$n conv=notrunc,fsync 2> /dev/null || exit; done
  echo "<flushed $n>"
done
`);
let text = '';
let isDoomed = false;
for await (const bytes of vm.console.output) {
  text += Buffer.from(bytes).toString('latin1');
  for (let match; (match = /<flushed (\d+)>/.exec(text)) !== null; text = text.slice(match.index + match[0].length)) {
    appendFileSync(reports, `${match[1]}\n`);
    if (Number(match[1]) < blocks || isDoomed) continue;
    isDoomed = true;
    // Anywhere in the next blocks' writes.
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), Math.random() * 500);
  }
}

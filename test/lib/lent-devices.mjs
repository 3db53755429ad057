/**
 * Lent devices as a stock guest sees them: entropy, console ports, one of them a terminal, two disks, one of which grows,
 * and all of them once more after the guest has rebooted. Prints what it saw as JSON.
 */
import { createHash, randomBytes } from 'node:crypto';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { callbackConsole, fileConsole, fileDisk, Machine, memoryDisk } from 'vivarium';
import { GuestShell } from './guest-shell.mjs';

const MiB = 1024 * 1024;
const PORT_BYTES = 200_000;
const { kernel, initrd, folder } = JSON.parse(process.argv[2]);
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** A port whose bytes are taken here, as many as are waited for. */
function makePort() {
  const received = [];
  let onBytes = () => undefined;
  const port = callbackConsole((bytes) => {
    received.push(Buffer.from(bytes));
    onBytes();
  });
  const take = async (count) => {
    while (received.reduce((sum, { length }) => sum + length, 0) < count) {
      await new Promise((resolve) => (onBytes = resolve));
    }
    return Buffer.concat(received.splice(0));
  };
  return { port, take };
}

const { port, take } = makePort();
const terminal = makePort();

const growing = join(folder, 'growing.img');
writeFileSync(growing, randomBytes(MiB));
const vm = await Machine.create({
  memory: '256MiB',
  boot: { kernel, initrd, cmdline: 'console=ttyS0 panic=-1 quiet' },
  onReset: 'restart',
  disks: [
    { id: 'first', backend: memoryDisk('2MiB') },
    { id: 'growing', backend: fileDisk(growing) },
  ],
  consolePorts: [
    { id: 'echo', name: 'org.vivarium.echo', backend: port },
    { id: 'log', backend: fileConsole(join(folder, 'log')) },
    { id: 'tty', terminal: true, backend: terminal.port },
  ],
});

/** Text both ways through the guest's terminal, and its size before and after a resize; each as the guest sees it. */
async function lookAtTerminal(shell, { columns, rows }) {
  await shell.run('exec 4<> /dev/hvc0; stty -F /dev/hvc0 raw -echo');
  const before = await shell.run('stty size -F /dev/hvc0');
  const text = `${columns} columns from the host\n`;
  const seen = shell.run('read -r line <&4; echo "$line"');
  await terminal.port.input(Buffer.from(text));
  const fromHost = await seen;
  const answer = `${rows} rows from the guest\n`;
  await shell.run(`printf '${answer.replace('\n', '\\n')}' >&4`);
  const fromGuest = (await terminal.take(answer.length)).toString();
  vm.device('tty').resize({ columns, rows });
  const after = await shell.run(
    `for n in 1 2 3 4 5 6 7 8 9 10; do [ "$(stty size -F /dev/hvc0)" = "${before}" ] && sleep 1; done; stty size -F /dev/hvc0`,
  );
  await shell.run('exec 4>&-');
  return { before, fromHost, fromGuest, after };
}

/** What both boots are asked. */
async function look(shell, size) {
  const sent = randomBytes(PORT_BYTES);
  const generator = await shell.run('cat /sys/class/misc/hw_random/rng_current; head -c 4096 /dev/hwrng | sha256sum');
  const names = await shell.run('cat /sys/class/virtio-ports/*/name');
  await shell.run('cd /sys/class/virtio-ports; echo=$(grep -l echo */name); log=$(grep -l log */name)');
  const answered = shell.run(
    `exec 3<> /dev/\${echo%/name}; head -c ${PORT_BYTES} <&3 > /tmp/in; cat /tmp/in >&3; sha256sum < /tmp/in`,
  );
  await port.input(sent);
  const guestSum = (await answered).split(' ')[0];
  const back = await take(PORT_BYTES);
  await shell.run('exec 3>&-; echo "boot of $(uname -r)" > /dev/${log%/name}');
  const seenTerminal = await lookAtTerminal(shell, size);
  const sizes = await shell.run(
    'cat /sys/block/vda/size /sys/block/vdb/size /sys/block/vda/serial; echo; cat /proc/interrupts',
  );
  return {
    generator: generator.split('\n'),
    names: names.split('\n').sort(),
    portIsRight: guestSum === sha256(sent) && sha256(back) === sha256(sent),
    terminal: seenTerminal,
    sizes: sizes.split('\n').slice(0, 3),
    interrupts: [...sizes.matchAll(/virtio\d+-(\S+)$/gm)].map(([, name]) => name),
  };
}

try {
  await vm.start();
  let shell = await GuestShell.ready(vm);
  const first = await look(shell, { columns: 132, rows: 50 });
  const seed = await shell.run(
    'dd if=/dev/urandom of=/dev/vda bs=64k count=8 conv=fsync 2> /dev/null; sha256sum < /dev/vda',
  );
  const wrong = await vm
    .device('growing')
    .rebind(memoryDisk('512KiB'))
    .catch(({ message }) => message);

  truncateSync(growing, 3 * MiB);
  const refreshed = await vm.device('growing').refresh();
  const grown = await shell.run(
    'for n in 1 2 3 4 5 6 7 8 9 10; do [ $(cat /sys/block/vdb/size) = 2048 ] && sleep 1; done; cat /sys/block/vdb/size;' +
      ' echo at the end | dd of=/dev/vdb bs=512 seek=6143 conv=notrunc,fsync 2> /dev/null && blockdev --getsize64 /dev/vdb',
  );

  vm.console.write('reboot -f\n');
  while (vm.inspect().resets === 0) await delay(50);
  shell = await GuestShell.ready(vm, { boot: 1 });
  const second = await look(shell, { columns: 90, rows: 33 });
  const kept = await shell.run('sha256sum < /dev/vda; dd if=/dev/vdb bs=512 skip=6143 2> /dev/null | head -n 1');
  const contracts = Object.fromEntries(
    ['first', 'growing', 'echo', 'log', 'entropy'].map((id) => [id, vm.device(id).contract]),
  );
  vm.console.write('poweroff\n');
  const { reason } = await vm.wait();
  const disk = { isKept: kept.split('\n')[0] === seed, end: kept.split('\n')[1] };
  console.log(JSON.stringify({ first, second, wrong, refreshed, grown: grown.split('\n'), disk, contracts, reason }));
} finally {
  await vm.close();
}

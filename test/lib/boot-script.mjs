/**
 * One boot through the library, where Linux guests run: natively, or as a script inside the embedded host. Boots the kernel
 * that its argument names (JSON), pauses it at random moments if asked to, reads a line at its prompt, powers it off, and
 * prints what it saw as JSON.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Machine } from 'vivarium';

const { kernel, initrd, entry, pauses } = JSON.parse(process.argv[2]);
const boot = { kernel, initrd, cmdline: 'console=ttyS0 panic=-1 quiet', ...(entry === undefined ? {} : { entry }) };
const vm = await Machine.create({ memory: '256MiB', boot });
try {
  await vm.start();
  let isUp = false;
  const prompt = vm.console.waitFor(/vivarium:~# /, { timeoutMs: 200_000 }).then(() => (isUp = true));
  prompt.catch(() => undefined);
  const registers = () => JSON.stringify(vm.inspect().cpus.map(({ mpState, regs }) => ({ mpState, regs })));
  let [paused, moved] = [0, 0];
  for (; pauses && !isUp; paused++) {
    await delay(Math.random() * 250);
    await vm.pause();
    const before = [registers(), vm.console.text].join();
    await delay(Math.random() * 20);
    if ([registers(), vm.console.text].join() !== before || vm.state !== 'paused') moved++;
    await vm.resume();
  }
  await prompt;
  vm.console.write('echo "<$(uname -r) $(cat /proc/sys/kernel/bootloader_type)>"; poweroff\n');
  const [, release, loader] = await vm.console.waitFor(/<(\d\S+) (\d+)>/, { timeoutMs: 60_000 });
  const { reason } = await vm.wait();
  console.log(JSON.stringify({ release, loader: Number(loader), paused, moved, reason }));
} finally {
  await vm.close();
}

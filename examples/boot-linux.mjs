/**
 * Boots Debian's cloud kernel to a busybox shell, types at its console, and reads what it answers: `npm run setup` once,
 * then `node examples/boot-linux.mjs`. Where this machine has no KVM that can run a Linux kernel, the same file runs
 * itself inside the embedded KVM host, where it can.
 */
import { defaultInitramfs, defaultKernel, host, Machine } from 'vivarium';

async function bootAndAsk() {
  const kernel = await defaultKernel();
  const initrd = await defaultInitramfs({ kernel });
  const vm = await Machine.create({
    memory: '256MiB',
    boot: { kernel: kernel.path, initrd, cmdline: 'console=ttyS0 panic=-1 quiet' },
  });
  try {
    await vm.start();
    await vm.console.waitFor(/vivarium:~# /, { timeoutMs: 240_000 });
    vm.console.write('echo "this is $(uname -sr), up for $(cut -d. -f1 /proc/uptime) s"\n');
    const [answer] = await vm.console.waitFor(/^this is Linux .*\r\n/m, { timeoutMs: 60_000 });
    console.log(answer.trim());
    vm.console.write('poweroff\n');
    console.log(`ended by ${(await vm.wait()).reason}`);
  } finally {
    await vm.close();
  }
}

try {
  await bootAndAsk();
} catch (error) {
  if (!['ERR_KVM_UNAVAILABLE', 'ERR_LINUX_NEEDS_EMBEDDED_HOST'].includes(error.code)) throw error;
  console.error(error.message);
  const inside = await host.run(import.meta.filename, { onStderr: (bytes) => void process.stderr.write(bytes) });
  process.stdout.write(inside.stdout);
  process.exitCode = inside.status;
}

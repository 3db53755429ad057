/**
 * A guest of 32 bytes: 16-bit code that writes a text to the serial port and leaves through the debug-exit port.
 * `node examples/flat-guest.mjs` needs nothing but a /dev/kvm that can be opened; where there is none, the same file runs
 * itself inside the embedded KVM host.
 */
import { host, Machine } from 'vivarium';

const ADDRESS = 0x1000;
const text = 'hello, world\n';

const code = [
  [0xbe, (ADDRESS + 18) & 0xff, (ADDRESS + 18) >> 8], // mov si, text
  [0xba, 0xf8, 0x03], //                                 mov dx, 0x3f8
  [0xac], //                                       next: lodsb
  [0x84, 0xc0], //                                       test al, al
  [0x74, 0x03], //                                       jz done
  [0xee], //                                             out dx, al
  [0xeb, 0xf8], //                                       jmp next
  [0xb0, 0x2a], //                                 done: mov al, 42
  [0xe6, 0xf4], //                                       out 0xf4, al
].flat();

async function runGuest() {
  const vm = await Machine.create({
    memory: '1MiB',
    boot: { flat: Uint8Array.from([...code, ...Buffer.from(`${text}\0`)]), address: ADDRESS, mode: 'real16' },
    debugExit: true,
  });
  try {
    await vm.start();
    const status = await vm.wait();
    console.log(`the guest wrote ${JSON.stringify(vm.console.text)} and ended by ${status.reason} with ${status.code}`);
  } finally {
    await vm.close();
  }
}

try {
  await runGuest();
} catch (error) {
  if (error.code !== 'ERR_KVM_UNAVAILABLE') throw error;
  console.error(error.message);
  const inside = await host.run(import.meta.filename, { onStderr: (bytes) => void process.stderr.write(bytes) });
  process.stdout.write(inside.stdout);
  process.exitCode = inside.status;
}

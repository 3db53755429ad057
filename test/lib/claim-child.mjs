// Has a machine with a nic of the address that is its argument until it is killed: a child process of test/kvm/machine-nics.test.ts.
import { Machine, networkSwitch } from 'vivarium';

await Machine.create({
  name: 'child',
  memory: '1MiB',
  boot: { flat: Uint8Array.of(0xf4), address: 0x1000, mode: 'real16' },
  nics: [{ id: 'net0', backend: networkSwitch('child'), mac: process.argv[2] }],
});
console.log('has it');
setInterval(() => undefined, 1000);

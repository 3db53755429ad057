// Serves a machine under the name that is its argument until it is killed: a child process of test/kvm/control.test.ts.
import { Machine, serveMachine } from 'vivarium';

const vm = await Machine.create({
  name: process.argv[2],
  memory: '1MiB',
  // jmp to itself
  boot: { flat: Uint8Array.of(0xeb, 0xfe), address: 0x1000, mode: 'real16' },
});
await serveMachine(vm);
await vm.start();
console.log('served');

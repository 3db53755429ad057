// Boots hand-assembled real-mode bytes on the raw addon, below every layer of lib/. Plain JavaScript, so that the child
// processes and Workers of the tests use it as well; native-rig.d.mts types it.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const addonPath = join(import.meta.dirname, '../../build/Release/vivarium.node');

export const EXIT_IO = 2;
export const EXIT_MMIO = 6;
export const STATE = { PARKED: 0, RUNNING: 1, EXIT: 2, FAILED: 3 };

/** Initialises the addon for this environment. */
export function makeRig() {
  const addon = createRequire(import.meta.url)(addonPath);
  const waiters = new Set();
  const rung = { doorbells: 0, sources: [] };
  const runtime = addon.initialize(
    (kind, name, errno, errnoNumber, detail) =>
      Object.assign(new Error(`${name}: ${errno}`), { kind, name, errno, errnoNumber, detail }),
    () => {
      rung.doorbells++;
      for (let source = runtime.next(0); source !== 0; source = runtime.next(0)) {
        rung.sources.push(source);
        for (const waiter of waiters) waiter();
      }
      for (const waiter of waiters) waiter();
    },
  );
  let system;
  const rig = {
    addon,
    runtime,
    rung,
    get system() {
      return (system ??= new addon.System(process.env.VIVARIUM_KVM ?? '/dev/kvm'));
    },
    // Resolves when the condition holds; looked at whenever the doorbell has rung.
    until(condition) {
      if (condition()) return Promise.resolve();
      runtime.ref();
      return new Promise((resolve, reject) => {
        const waiter = () => {
          let holds;
          try {
            holds = condition();
          } catch (error) {
            waiters.delete(waiter);
            reject(error);
            return;
          }
          if (!holds) return;
          waiters.delete(waiter);
          runtime.unref();
          resolve();
        };
        waiters.add(waiter);
      });
    },
    boot(options) {
      return boot(rig, options);
    },
  };
  return rig;
}

// Options: code (bytes, or one array for each vCPU), memoryBytes, vcpus, irqchip.
function boot(rig, { code = [], memoryBytes = 0x80000, vcpus = 1, irqchip = true } = {}) {
  const { addon } = rig;
  const vm = rig.system.createVm(0);
  vm.ioctlValue('KVM_SET_TSS_ADDR', 0xfffbd000);
  if (irqchip) {
    vm.ioctlValue('KVM_CREATE_IRQCHIP');
    vm.ioctl('KVM_CREATE_PIT2', new Uint8Array(64));
  }
  const memory = new addon.Memory({ sizeBytes: memoryBytes, backing: 'anonymous', hugePages: false });
  vm.setMemorySlot(0, 0, 0, memory, 0, memoryBytes);
  const bytes = new Uint8Array(memory.view(0, memoryBytes));
  const programs = Array.isArray(code[0]) ? code : [code];
  const cpus = Array.from({ length: vcpus }, (_, id) => {
    const at = 0x1000 * (id + 1);
    bytes.set(programs[id % programs.length], at);
    const native = vm.createVcpu(id, `rig-vcpu-${id}`);
    setRealMode(native, at);
    // Without a SIPI: further vCPUs start as the first does.
    if (id > 0) native.ioctl('KVM_SET_MP_STATE', new Uint8Array(4));
    return wrapVcpu(rig, native);
  });
  return {
    vm,
    memory,
    bytes,
    cpus,
    cpu: cpus[0],
    portFlags: new Uint8Array(vm.portFlags),
    portValues: new Uint8Array(vm.portValues),
    takePosted: () => takePosted(vm),
    postedWaiters: () => Atomics.load(new Int32Array(vm.postedControl), 17),
    // Entries that wait in the ring.
    postedCount() {
      const control = new Uint32Array(vm.postedControl);
      return (Atomics.load(control, 0) - Atomics.load(control, 16)) >>> 0;
    },
    close() {
      vm.close();
      memory.close();
    },
  };
}

/** Execution at 0:ip, every segment at 0, SP 0x7000, interrupts off. */
export function setRealMode(native, ip) {
  const sregs = native.ioctl('KVM_GET_SREGS');
  const view = new DataView(sregs.buffer);
  for (let segment = 0; segment < 6; segment++) {
    view.setBigUint64(segment * 24, 0n, true);
    view.setUint16(segment * 24 + 12, 0, true);
  }
  native.ioctl('KVM_SET_SREGS', sregs);
  const regs = new BigUint64Array(18);
  regs[6] = 0x7000n;
  regs[16] = BigInt(ip);
  regs[17] = 2n;
  native.ioctl('KVM_SET_REGS', new Uint8Array(regs.buffer));
}

function wrapVcpu(rig, native) {
  const run = new DataView(native.run);
  const control = new Int32Array(native.control);
  const counters = new BigUint64Array(native.control);
  const cpu = {
    native,
    run,
    state: () => Atomics.load(control, 0),
    runErrno: () => Atomics.load(control, 1),
    counters: () => ({ exits: counters[1], native: counters[2], script: counters[3], kicks: counters[4] }),
    regs: () => new BigUint64Array(native.ioctl('KVM_GET_REGS').buffer),
    // The exit that waits.
    exit() {
      const reason = run.getUint32(8, true);
      if (reason === EXIT_IO) {
        const offset = Number(run.getBigUint64(40, true));
        return {
          reason,
          write: run.getUint8(32) === 1,
          sizeBytes: run.getUint8(33),
          address: run.getUint16(34, true),
          count: run.getUint32(36, true),
          data: new Uint8Array(native.run, offset, run.getUint8(33) * run.getUint32(36, true)),
        };
      }
      if (reason === EXIT_MMIO) {
        return {
          reason,
          write: run.getUint8(52) !== 0,
          sizeBytes: run.getUint32(48, true),
          address: Number(run.getBigUint64(32, true)),
          count: 1,
          data: new Uint8Array(native.run, 40, 8),
        };
      }
      return { reason, write: false, sizeBytes: 0, address: 0, count: 0, data: new Uint8Array(0) };
    },
    async nextExit() {
      await rig.until(() => cpu.state() === STATE.EXIT);
      return cpu.exit();
    },
    async park() {
      native.park();
      await rig.until(() => cpu.state() === STATE.PARKED);
    },
  };
  return cpu;
}

function takePosted(vm) {
  const control = new Uint32Array(vm.postedControl);
  const entries = new DataView(vm.postedRing);
  const taken = [];
  const head = Atomics.load(control, 0);
  let tail = Atomics.load(control, 16);
  for (; tail !== head; tail = (tail + 1) >>> 0) {
    const at = (tail % 4096) * 24;
    taken.push({
      address: Number(entries.getBigUint64(at, true)),
      value: Number(entries.getBigUint64(at + 8, true)),
      sizeBytes: entries.getUint32(at + 16, true),
      space: entries.getUint32(at + 20, true),
    });
  }
  Atomics.store(control, 16, tail);
  if (Atomics.load(control, 17) !== 0) vm.postedConsumed();
  return taken;
}

/**
 * What this process holds of KVM, and all its threads and descriptors.
 *
 * @param nodeLeaks where files lie that are opened by promise in a Worker, if it may be ended at any moment: Node (seen
 *   with 20.20) never closes one whose opening is under way just then.
 */
export function held(nodeLeaks) {
  const ours = (name) => name !== '' && (nodeLeaks === undefined || !name.startsWith(nodeLeaks));
  const names = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ''; // the descriptor of the listing itself
    }
  });
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  const threads = readdirSync('/proc/self/task').map((task) => {
    try {
      return readFileSync(`/proc/self/task/${task}/comm`, 'utf8').trim();
    } catch {
      return '';
    }
  });
  return {
    kvmFds: names.filter((name) => name.includes('kvm')).length,
    fds: names.filter(ours).length,
    kvmMaps: maps.filter((line) => line.includes('kvm')).length,
    guestThreads: threads.filter((name) => name.startsWith('rig-vcpu') || name === 'vivarium-events').length,
    threads: threads.length,
  };
}

// What a process or a Worker does to a running machine without closing it: the child processes of
// test/kvm/native-life.test.ts. The first argument names the scene; the last line of output is JSON.
import { stat } from 'node:fs/promises';
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { held, makeRig, STATE } from './native-rig.mjs';

// in al, 0xc0; out 0xc1, al; mov [0x2000], al; jmp back: exits, posts and dirties memory all the time.
const BUSY = [0xe4, 0xc0, 0xe6, 0xc1, 0xa2, 0x00, 0x20, 0xeb, 0xf7];

// Two vCPUs that exit all the time; they are served, or they wait.
async function runBusily(rig, { serve }) {
  const machine = rig.boot({ code: BUSY, vcpus: 2 });
  machine.portFlags[0xc1] = 2;
  // The event thread has work too, a coalesced zone (ports 0xd0 to 0xdf) and a change of the PIT that waits for a tick;
  // the event loop has a watched eventfd.
  const zone = new Uint8Array(16);
  zone.set([0xd0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1]);
  machine.vm.ioctl('KVM_REGISTER_COALESCED_MMIO', zone);
  const event = new rig.addon.EventFd(1);
  const watched = rig.runtime.watch(event);
  await rig.until(() => rig.rung.sources.includes(watched));
  machine.vm.openPit().change({
    expected: { count: 0, mode: 0, latch: 0 },
    waitForTickNs: 3_600_000_000_000n,
    expiry: { afterNs: 0n, load: { count: 1, latch: 1 } },
  });
  for (const cpu of machine.cpus) cpu.native.resume();
  let served = 0;
  await rig.until(() => {
    machine.takePosted();
    for (const cpu of machine.cpus) {
      if (serve && cpu.state() === STATE.EXIT) {
        cpu.native.complete();
        served++;
      }
    }
    return serve ? served > 200 : machine.cpus.every((cpu) => cpu.state() === STATE.EXIT);
  });
  return machine;
}

// What an environment has once it was needed: the event thread, and the event loop's descriptor.
async function startWatching(rig) {
  const machine = rig.boot();
  machine.vm.openPit();
  machine.close();
  await collect(() => rig.runtime.counts().vms === 0);
  const event = new rig.addon.EventFd();
  rig.runtime.unwatch(rig.runtime.watch(event));
  event.close();
}

async function collect(done) {
  for (let round = 0; round < 200 && !done(); round++) {
    globalThis.gc();
    await turn();
    await delay(5);
  }
}

const scenes = {
  // The event loop has nothing left to do: the process ends by itself, with guests running.
  async leave() {
    await runBusily(makeRig(), { serve: true });
  },

  async exit() {
    await runBusily(makeRig(), { serve: true });
    process.exit(0);
  },

  // vCPUs that wait for JavaScript, spinning or asleep.
  async 'exit-waiting'() {
    const rig = makeRig();
    rig.runtime.setVcpuSpin(5_000_000);
    await runBusily(rig, { serve: false });
    process.exit(0);
  },

  async 'exit-closing'() {
    const { vm } = await runBusily(makeRig(), { serve: true });
    void vm.closeAsync();
    process.exit(0);
  },

  async throw() {
    await runBusily(makeRig(), { serve: true });
    process.on('uncaughtException', () => process.exit(0));
    throw new Error('the program ends here');
  },

  // What JavaScript throws when a signal calls it is the process's uncaught exception.
  async 'throw-when-signalled'() {
    const rig = makeRig();
    const event = new rig.addon.EventFd();
    rig.runtime.watch(event);
    process.on('uncaughtException', (error) => process.exit(error.message === 'signalled' ? 0 : 1));
    rig.rung.sources.push = () => {
      throw new Error('signalled');
    };
    rig.runtime.ref();
    event.write(1n);
  },

  // Machines, vCPUs and memory are collected while their guests run.
  async collect() {
    const rig = makeRig();
    rig.system.apiVersion();
    await startWatching(rig);
    const before = held();
    let machines = [];
    for (let round = 0; round < 3; round++) machines.push(await runBusily(rig, { serve: round === 0 }));
    const during = rig.runtime.counts();
    // Until here: V8 may collect whenever it likes.
    if (machines.length === 3) machines = undefined;
    await collect(() => rig.runtime.counts().vms === 0 && rig.runtime.counts().mappings === 0);
    console.log(JSON.stringify({ before, during, after: held(), counts: rig.runtime.counts() }));
  },

  // A view keeps its mapping, and nothing else does.
  async 'collect-view'() {
    const rig = makeRig();
    let memory = new rig.addon.Memory({ sizeBytes: 1 << 20, backing: 'anonymous', hugePages: false });
    let view = new Uint8Array(memory.view(0, 1 << 20));
    view[5] = 5;
    memory = undefined;
    await collect(() => rig.runtime.counts().mappings === 1);
    const kept = rig.runtime.counts().mappings;
    const value = view[5];
    view = undefined;
    await collect(() => rig.runtime.counts().mappings === 0);
    console.log(JSON.stringify({ kept, value, left: rig.runtime.counts().mappings }));
  },

  // A vCPU object alone keeps its machine.
  async 'collect-not'() {
    const rig = makeRig();
    const { cpu } = rig.boot({ code: [0xe4, 0xc0, 0xeb, 0xfc] });
    cpu.native.resume();
    await cpu.nextExit();
    for (let round = 0; round < 10; round++) {
      globalThis.gc();
      await turn();
    }
    cpu.native.complete();
    await cpu.nextExit();
    console.log(JSON.stringify(rig.runtime.counts()));
    process.exit(0);
  },

  // Workers end with guests running: told to, and in the middle of everything.
  async worker() {
    await endWorker('run');
    await endWorker('run'); // what V8 and the C library keep for the next one is in place now
    await stat('/'); // and libuv's own threads, which newer versions of Node start with their first work
    const before = held();
    for (const how of ['run', 'run', 'leave', 'exit', 'waiting', 'closing', 'creating']) await endWorker(how);
    console.log(JSON.stringify({ before, after: held() }));
  },

  // Every descriptor is taken: creation fails in the middle, again and again, and leaves nothing behind.
  async emfile() {
    const rig = makeRig();
    rig.system.apiVersion();
    await startWatching(rig);
    const before = held();
    const { openSync, closeSync } = await import('node:fs');
    const errors = new Set();
    rig.boot().close();
    const taken = [];
    try {
      for (;;) taken.push(openSync('/dev/null'));
    } catch (error) {
      errors.add(error.code);
    }
    for (let free = 0; free < 8; free++) {
      try {
        const machine = rig.boot({ vcpus: 2 });
        try {
          machine.vm.openPit();
        } finally {
          machine.close();
        }
      } catch (error) {
        errors.add(`${error.name} ${error.errno}`);
      }
      globalThis.gc();
      await turn();
      closeSync(taken.pop());
    }
    for (const fd of taken) closeSync(fd);
    rig.boot().close();
    await collect(() => rig.runtime.counts().vms === 0);
    console.log(JSON.stringify({ before, after: held(), errors: [...errors], counts: rig.runtime.counts() }));
  },
};

async function endWorker(how) {
  const worker = new Worker(new URL(import.meta.url), { workerData: { how } });
  const ended = new Promise((resolve, reject) => {
    worker.on('exit', resolve);
    worker.on('error', reject);
  });
  if (how !== 'leave' && how !== 'exit') {
    await new Promise((resolve) => worker.on('message', resolve));
    await worker.terminate();
  }
  await ended;
}

async function inWorker(how) {
  const rig = makeRig();
  const machine = await runBusily(rig, { serve: how !== 'waiting' });
  if (how === 'leave') return;
  if (how === 'exit') process.exit(0);
  if (how === 'closing') void machine.vm.closeAsync();
  if (how === 'creating') for (let index = 0; index < 4; index++) void rig.system.createVmAsync(0);
  parentPort.postMessage('running');
  // Busy to the end: terminate() comes while exits are served.
  await rig.until(() => {
    if (how === 'run') {
      machine.takePosted();
      for (const cpu of machine.cpus) if (cpu.state() === STATE.EXIT) cpu.native.complete();
    }
    return false;
  });
}

if (isMainThread) await scenes[process.argv[2]]();
else await inWorker(workerData.how);

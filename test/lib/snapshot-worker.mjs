// Workers that restore a machine lazily and are ended in the middle, in every way: the child process of
// test/kvm/machine-snapshot-worker.test.ts. Its argument, in JSON: guest as base64, address, folder, memory, mode. The last line of output is JSON.
import path from 'node:path';
import process from 'node:process';
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { loadBinding } from '#lib/kvm/binding.js';
import { Machine } from 'vivarium';
import { held } from './native-rig.mjs';

const missing = (vm) => vm.inspect().memory.pager?.missingGroups ?? 0;

/** How the Worker ends, when its machine has been restored. */
const ends = {
  'terminated at once': { start: true },
  'terminated while it is paused': { start: false },
  'terminated in a snapshot': { start: true, then: (vm, { next, mode }) => vm.snapshot(next, { mode }) },
  'terminated in its close': { start: true, then: (vm) => vm.close() },
  'left by process.exit': { start: true, then: () => process.exit(0) },
  'left by an exception': {
    start: true,
    then: () =>
      setImmediate(() => {
        throw new Error('the Worker ends here');
      }),
  },
};

async function inWorker() {
  const { snap, end, memory } = workerData;
  const { start, then } = ends[end];
  const vm = await Machine.restore(snap, { memory, start });
  parentPort.postMessage(missing(vm));
  // It is under way when the other thread hears of the machine, or soon.
  Promise.resolve(then?.(vm, workerData)).catch(() => undefined);
  await new Promise(() => setInterval(() => undefined, 1000));
}

async function settled(folder) {
  for (let round = 0; round < 200; round++) {
    const { vms, mappings, groupPools } = loadBinding().dispatcher.runtime.counts();
    if (vms === 0 && mappings === 0 && groupPools === 0) break;
    globalThis.gc();
    await turn();
    await delay(5);
  }
  return { ...held(folder), counts: loadBinding().dispatcher.runtime.counts() };
}

async function outside() {
  const { guest, address, folder, memory, mode } = JSON.parse(process.argv[2]);
  const boot = { flat: Buffer.from(guest, 'base64'), address, mode: 'long64' };
  const vm = await Machine.create({ memory: '64MiB', boot });
  const snap = path.join(folder, 'snap');
  await vm.start();
  const last = () => new DataView(vm.memory.read(0x20_0000, 8).buffer).getBigUint64(0, true);
  while (last() < 2n) await turn();
  await vm.snapshot(snap, { mode: 'paused', compress: 'none' });
  await vm.close();
  // The first one makes what a process has once.
  const before = await settled(folder);
  const report = [];
  for (const end of Object.keys(ends)) {
    const worker = new Worker(new URL(import.meta.url), {
      workerData: { snap, end, memory, mode, next: path.join(folder, 'next') },
    });
    const [exited, heard] = ['exit', 'message'].map((event) => new Promise((resolve) => worker.once(event, resolve)));
    let error = null;
    worker.on('error', ({ message }) => (error = message));
    const missingThen = await Promise.race([heard, exited.then(() => null)]);
    if (end.startsWith('terminated')) void worker.terminate();
    await exited;
    report.push({ end, missing: missingThen, error });
  }
  // The snapshot is whole, and of use.
  const clone = await Machine.restore(snap, { memory });
  const { missingGroups = 0 } = await clone.restored.complete;
  await clone.close();
  console.log(JSON.stringify({ before, after: await settled(folder), report, missingGroups }));
}

await (isMainThread ? outside() : inWorker());

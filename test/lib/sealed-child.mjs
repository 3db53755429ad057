// A process that has given up what a machine's does, and says what it still can: the child of test/unit/seal.test.ts. Its last line of
// output is JSON. `--threads-first`: after a thread of ours runs.
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { makeRig } from './native-rig.mjs';

const PAGE = 4096;
const rig = makeRig();
const outcome = {};
const tell = (name, work) => {
  try {
    outcome[name] = work() ?? 'done';
  } catch (error) {
    outcome[name] = error.errno ?? error.code ?? String(error);
  }
};
const memory = () => new rig.addon.Memory({ sizeBytes: 1 << 20, backing: 'anonymous', hugePages: false });
const path = join(tmpdir(), `vivarium-sealed-${process.pid}`);
const file = openSync(path, 'w+');
rmSync(path);
writeSync(file, Buffer.alloc(PAGE, 7));

if (process.argv.includes('--threads-first')) {
  new rig.addon.IoQueue(memory(), 'threads');
  // They put their filters on themselves once they run.
  // They may have inherited some, as in a container.
  const filtersOf = (thread) =>
    Number(/^Seccomp_filters:\s+(\d+)$/m.exec(readFileSync(`/proc/self/task/${thread}/status`, 'latin1'))?.[1]);
  const hasOwn = (thread) => filtersOf(thread) > filtersOf(process.pid);
  while (!readdirSync('/proc/self/task').some(hasOwn)) await new Promise((resolve) => setImmediate(resolve));
}
outcome.errno = rig.addon.sealProcess(false, false);
tell('start', () => {
  const { error } = spawnSync('/bin/true');
  if (error !== undefined) throw error;
});
tell('worker', () => void new Worker('', { eval: true }));
await new Promise((resolve) => {
  const server = createServer().once('error', (error) => resolve((outcome.listen = error.code)));
  server.listen(path, () => server.close(() => resolve((outcome.listen = 'done'))));
});

// Rings that were made before are there, and read; then there are none.
const queues = [];
for (const name of ['first', 'second', 'third']) {
  tell(name, () => {
    const of = memory();
    const queue = new rig.addon.IoQueue(of, 'io_uring');
    queues.push(queue);
    const area = new DataView(queue.area());
    area.setInt32(4, file, true);
    area.setUint32(28, 1, true);
    area.setBigUint64(10_240 + 8, BigInt(PAGE), true);
    return queue.submit(1) === 1 ? 'read' : 'waits';
  });
}
tell('auto', () => {
  const queue = new rig.addon.IoQueue(memory(), 'auto');
  queues.push(queue);
  return queue.kind;
});
closeSync(file);
console.log(JSON.stringify(outcome));
process.exit(0);

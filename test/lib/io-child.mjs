// What a process or a Worker does to file requests that are under way: the child processes of
// test/unit/native-io-life.test.ts. Arguments: the scene, the kind of the queue; the last line of output is JSON.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { makeRig } from './native-rig.mjs';

const [, , scene, kind] = isMainThread ? process.argv : [undefined, undefined, ...workerData];
const SIZE = 1 << 20;

// Nobody writes into it: a read waits for ever.
function openFifo() {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-io-child-'));
  execFileSync('mkfifo', [join(folder, 'fifo')]);
  const fd = openSync(join(folder, 'fifo'), 'r+');
  rmSync(folder, { recursive: true });
  return fd;
}

// Reads of a page each, with tags from 0, into a memory that is closed at once; the descriptors of a queue in full use.
function readForEver(rig, fd, count = 8) {
  const memory = new rig.addon.Memory({ sizeBytes: SIZE, backing: 'anonymous', hugePages: false });
  const queue = new rig.addon.IoQueue(memory, kind);
  const area = new DataView(queue.area());
  for (let tag = 0; tag < count; tag++) {
    area.setInt32(tag * 40 + 4, fd, true);
    area.setUint32(tag * 40 + 24, tag, true);
    area.setUint32(tag * 40 + 28, 1, true);
    area.setUint32(tag * 40 + 32, tag, true);
    area.setBigUint64(10_240 + tag * 16, BigInt(tag * 4096), true);
    area.setBigUint64(10_240 + tag * 16 + 8, 4096n, true);
  }
  if (queue.submit(count) !== 0) throw new Error('a read of an empty FIFO has completed');
  memory.close();
  return queue;
}

// Ours of the process: threads, rings and eventfds.
function held() {
  const names = (folder, name) =>
    readdirSync(folder).map((entry) => {
      try {
        return name(join(folder, entry));
      } catch {
        return '';
      }
    });
  const threads = names('/proc/self/task', (path) => readFileSync(join(path, 'comm'), 'utf8').trim());
  const fds = names('/proc/self/fd', (path) => readlinkSync(path));
  return {
    threads: threads.filter((name) => name.startsWith('vivarium')).length,
    rings: fds.filter((name) => name.includes('io_uring')).length,
    eventFds: fds.filter((name) => name.includes('eventfd')).length,
  };
}

async function endWorker(how) {
  const worker = new Worker(new URL(import.meta.url), { workerData: [how, kind] });
  const ended = new Promise((resolve, reject) => {
    worker.on('exit', resolve);
    worker.on('error', reject);
  });
  if (how === 'run') {
    await new Promise((resolve) => worker.on('message', resolve));
    await worker.terminate();
  }
  await ended;
}

const scenes = {
  async leave() {
    readForEver(makeRig(), openFifo());
  },
  async exit() {
    readForEver(makeRig(), openFifo());
    process.exit(0);
  },
  async throw() {
    readForEver(makeRig(), openFifo());
    process.on('uncaughtException', () => process.exit(0));
    throw new Error('the program ends here');
  },
  // close() by itself cancels; what was under way lets the memory go.
  async close() {
    const rig = makeRig();
    const queue = readForEver(rig, openFifo());
    const during = rig.runtime.counts();
    queue.close();
    queue.close();
    console.log(JSON.stringify({ during, after: rig.runtime.counts(), held: held() }));
  },
  async collect() {
    const rig = makeRig();
    readForEver(rig, openFifo());
    for (let round = 0; round < 200 && rig.runtime.counts().ioQueues > 0; round++) {
      globalThis.gc();
      await turn();
      await delay(5);
    }
    console.log(JSON.stringify(rig.runtime.counts()));
  },
  async worker() {
    await endWorker('run');
    const before = held();
    for (const how of ['run', 'leave', 'exit', 'run']) await endWorker(how);
    console.log(JSON.stringify({ before, after: held() }));
  },
  async run() {
    readForEver(makeRig(), openFifo());
    parentPort.postMessage('running');
    for (;;) await turn();
  },
  // No descriptor is left for a ring: threads take over, unless io_uring was asked for by name.
  async emfile() {
    const rig = makeRig();
    const memory = new rig.addon.Memory({ sizeBytes: SIZE, backing: 'anonymous', hugePages: false });
    const fds = [];
    try {
      for (;;) fds.push(openSync('/dev/null', 'r'));
    } catch (error) {
      if (error.code !== 'EMFILE') throw error;
    }
    const { kind: taken, refusal } = new rig.addon.IoQueue(memory, 'auto');
    let error;
    try {
      new rig.addon.IoQueue(memory, 'io_uring');
    } catch (thrown) {
      error = thrown.message;
    }
    console.log(JSON.stringify({ taken, refusal, error }));
    process.exit(0);
  },
};

await scenes[scene]();

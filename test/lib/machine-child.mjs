// What becomes of machines of the library that their process forgets, or has no descriptors for: the child processes of
// test/kvm/machine-end.test.ts. The first argument names the scene; the last line of output is JSON.
import { randomBytes } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';
import { loadBinding } from '#lib/kvm/binding.js';
import { Machine } from 'vivarium';

// jmp to itself
const options = { memory: '2MiB', cpus: 2, boot: { flat: Uint8Array.of(0xeb, 0xfe), address: 0x1000, mode: 'real16' } };

const counts = () => {
  const { vms, vcpus, mappings } = loadBinding().dispatcher.runtime.counts();
  return { vms, vcpus, mappings, fds: readdirSync('/proc/self/fd').length };
};

async function collect(done) {
  for (let round = 0; round < 300 && !done(); round++) {
    globalThis.gc();
    await turn();
    await delay(5);
  }
}

/** One never started, one paused. */
async function forgetTwo() {
  await Machine.create(options);
  const paused = await Machine.create(options);
  await paused.start();
  await paused.pause();
}

async function forgetRunning() {
  const vm = await Machine.create(options);
  await vm.start();
}

const scenes = {
  async 'collect-machine'() {
    // What the first machine of a process makes once, such as the event thread, is there before it is counted.
    await (await Machine.create(options)).close();
    await collect(() => counts().vms === 0);
    const before = counts();
    await forgetTwo();
    let third = await Machine.create(options);
    const during = counts();
    await third.close();
    third = undefined;
    await collect(() => counts().vms === 0 && counts().mappings === before.mappings && counts().fds === before.fds);
    const after = counts();
    await forgetRunning();
    for (let round = 0; round < 20; round++) {
      globalThis.gc();
      await turn();
    }
    console.log(JSON.stringify({ before, during, after, stillRunning: counts() }));
    process.exit(0);
  },

  // A paused clone that nobody holds but who waits for its memory: the wait ends, and then it is collected.
  async 'await-memory'() {
    const folder = mkdtempSync(join(tmpdir(), 'vivarium-await-'));
    const memoryBytes = 64 * 2 ** 20;
    const saved = await Machine.create({ ...options, memory: memoryBytes });
    for (let at = 2 ** 20; at < memoryBytes; at += 2 ** 20) saved.memory.write(at, randomBytes(2 ** 20));
    await saved.snapshot(join(folder, 'snap'), { mode: 'paused', compress: 'none' });
    await saved.close();
    const collecting = setInterval(globalThis.gc, 1);
    const isWhole = async () => {
      const clone = await Machine.restore(join(folder, 'snap'), { memory: 'lazy', start: false });
      return { ms: (await clone.restored.complete).ms };
    };
    const whole = await Promise.race([isWhole(), delay(30_000, 'waits for ever', { ref: false })]);
    clearInterval(collecting);
    rmSync(folder, { recursive: true });
    console.log(JSON.stringify(whole));
    process.exit(0);
  },

  // Machine.create with fewer and fewer descriptors left: every failure is typed, and what it had made is gone.
  async emfile() {
    await (await Machine.create(options)).close();
    const before = counts();
    const codes = new Set();
    const taken = [];
    try {
      for (;;) taken.push(openSync('/dev/null'));
    } catch {
      // All are taken now.
    }
    let made = 0;
    while (made === 0 && taken.length > 0) {
      try {
        const vm = await Machine.create(options);
        made++;
        await vm.close();
      } catch (error) {
        const errno = [error.errno, error.cause?.errno].find((value) => typeof value === 'string');
        codes.add(errno === undefined ? String(error.code) : `${error.code} ${errno}`);
      }
      if (made === 0) closeSync(taken.pop());
    }
    for (const fd of taken) closeSync(fd);
    await collect(() => counts().fds === before.fds);
    console.log(JSON.stringify({ before, after: counts(), made, codes: [...codes] }));
  },
};

await scenes[process.argv[2]]();

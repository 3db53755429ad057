// Machines with disks are saved while their disk is in trouble. Run by test/kvm/machine-snapshot-faults.test.ts with
// disk-faults.c around it, and the guest test/guests/pattern.S. The last line of output is JSON.
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { setImmediate as turn } from 'node:timers/promises';
import { fileDisk, Machine, memoryDisk } from 'vivarium';
import { DiskFaults } from './disk-faults.mjs';

const { scene, folder, guest, address, base, pages, mode, errnos, calls, more } = JSON.parse(process.argv[2]);
const inFolder = (name) => path.join(folder, name);
const faults = new DiskFaults(folder);
const how = { mode, compress: 'none' };

const word = (vm, page) => Number(new DataView(vm.memory.read(base + 4096 * page, 8).buffer).getBigUint64(0, true));
const progress = (vm) => word(vm, 0);
async function until(condition) {
  while (!condition()) await turn();
}
async function runsOn(vm) {
  const from = progress(vm);
  await until(() => progress(vm) > from);
}
const interceptOf = (vm) => vm.inspect().memory.pager?.intercept ?? 'off';
const told = ({ code, errno: name, message, cure }) => ({ code, errno: name, message, cure });

async function start(disks = []) {
  const vm = await Machine.create({
    memory: base + 4096 * pages,
    boot: { flat: Buffer.from(guest, 'base64'), address, mode: 'long64' },
    disks,
  });
  await vm.start();
  await runsOn(vm);
  return vm;
}

/** Restored, the memory is that of one instant; the number that was written last. */
async function patternOf(dir) {
  const clone = await Machine.restore(dir, { start: false });
  try {
    const words = Array.from({ length: pages }, (_, page) => word(clone, page));
    const last = Math.max(...words);
    const isRight = words.every((value, page) => {
      return value === Math.max(last - ((((last - 1 - page) % pages) + pages) % pages), 0);
    });
    return isRight ? last : `not of one instant: ${words.join()}`;
  } finally {
    await clone.close();
  }
}

const scenes = {
  /** Each of these calls fails once, and then none. */
  async each() {
    for (const name of ['root.img', 'base.img']) writeFileSync(inFolder(name), new Uint8Array(2 ** 20));
    const disks = () => [
      { id: 'root', backend: fileDisk(inFolder('root.img')) },
      { id: 'scratch', backend: memoryDisk('1MiB') },
      { id: 'kept', backend: fileDisk(inFolder('base.img')), copyOnWrite: '1MiB' },
      { id: 'read', backend: fileDisk(inFolder('base.img')), readOnly: true },
    ];
    let vm = await start(disks());
    const attempts = [];
    for (const [index, [call, file, number]] of [...calls, ['none', '', 1]].entries()) {
      faults.failAt(number, errnos[index % errnos.length], call, file);
      const error = await vm.snapshot(inFolder('snap'), how).then(() => undefined, told);
      const attempt = {
        failed: faults.end(),
        error,
        left: readdirSync(folder).sort(),
        state: vm.state,
        intercept: interceptOf(vm),
        root: vm.device('root').contract.backend.kind,
      };
      await runsOn(vm);
      // A disk that could not sync never says again that something is durable: it is of no use any more.
      if (error === undefined || call === 'fdatasync') {
        await vm.close();
        if (error === undefined) attempt.pattern = await patternOf(inFolder('snap'));
        for (const name of readdirSync(folder)) if (!name.endsWith('.img')) rmSync(inFolder(name), { recursive: true });
        vm = await start(disks());
      }
      attempts.push(attempt);
    }
    return attempts;
  },

  /** No write of memory comes back until it is let go. */
  async slow() {
    const vm = await start();
    // No page is zero any more.
    await until(() => progress(vm) > pages);
    faults.hold();
    const saving = vm.snapshot(inFolder('snap'), { ...how, maxPauseMs: mode === 'paused' ? 86_000_000 : 60_000 });
    await until(() => faults.waiting > 0);
    const report = {};
    if (mode === 'paused') report.stood = await stands(vm);
    if (mode === 'live') {
      // Once around.
      const from = progress(vm);
      await until(() => progress(vm) > from + 2 * pages);
    }
    if (mode === 'instant') {
      const pager = () => vm.inspect().memory.pager;
      // The guest writes until all room is taken, and then waits in its write.
      await until(() => pager().stalls > 0);
      report.stood = await stands(vm);
      report.held = pager();
      // Each write that comes back makes room.
      report.steps = [];
      for (let step = 0; step < 3; step++) {
        const { savedGroups } = pager();
        faults.permit(1);
        await until(() => pager().savedGroups > savedGroups);
        report.steps.push(pager().savedGroups - savedGroups);
      }
    }
    faults.end();
    const { stats } = await saving;
    await runsOn(vm);
    const after = { state: vm.state, intercept: interceptOf(vm), left: readdirSync(folder) };
    await vm.close();
    return { ...report, stats, ...after, pattern: await patternOf(inFolder('snap')) };
  },

  /** As long as the disk is held the guest changes all of its memory, twice, while a part of it is written. */
  async faster() {
    const vm = await start();
    await until(() => progress(vm) > pages);
    const disk = async (isOver, most = Infinity) => {
      faults.hold();
      for (let part = 0; part < most && !isOver(); part++) {
        await until(() => isOver() || faults.waiting > 0);
        const from = progress(vm);
        await until(() => isOver() || progress(vm) > from + 2 * pages);
        faults.permit(48);
      }
    };
    let refused;
    const promised = { ...how, maxPauseMs: 20_000 };
    const saving = vm.snapshot(inFolder('never'), promised).then(
      () => (refused = {}),
      (error) => (refused = told(error)),
    );
    await disk(() => refused !== undefined);
    faults.end();
    await saving;
    // All of memory, and two rounds in vain: behind them the guest is slowed down. Each round counts its bytes from 0.
    let [round, bytesDone] = [1, 0];
    const onProgress = (progress) => {
      if (progress.bytesDone < bytesDone) round++;
      bytesDone = progress.bytesDone;
    };
    const slowed = vm.snapshot(inFolder('snap'), { ...promised, throttle: true, onProgress });
    await disk(() => round > 3);
    faults.end();
    const { stats } = await slowed;
    await runsOn(vm);
    // What else happens to a machine comes through while it is slowed down.
    const acts = [];
    for (const act of ['pause', 'kill']) {
      const acting = vm.snapshot(inFolder(act), { ...promised, throttle: true }).then(() => 'saved', told);
      await disk(() => false, 9);
      await vm[act]();
      faults.end();
      const end = await acting;
      acts.push({ act, end: end.code ?? end, state: vm.state });
      if (act === 'pause') {
        await vm.resume();
        await runsOn(vm);
      }
    }
    const left = readdirSync(folder);
    await vm.close();
    const patterns = [];
    for (const name of left) patterns.push(await patternOf(inFolder(name)));
    return { refused, stats, left, acts, patterns };
  },

  /** Saved while its own memory still comes, slowly, from a snapshot. */
  async lazy() {
    const first = await start();
    await until(() => progress(first) > pages);
    await first.snapshot(inFolder('first'), { mode: 'paused', compress: 'none' });
    await first.close();
    faults.slowReads(10);
    const vm = await Machine.restore(inFolder('first'), { memory: 'lazy' });
    const missing = () => vm.inspect().memory.pager.missingGroups ?? 0;
    const atOnce = missing();
    let during;
    const onProgress = () => (during ??= missing());
    const { stats } = await vm.snapshot(inFolder('snap'), {
      ...how,
      ...(more.parent ? { parent: inFolder('first') } : {}),
      onProgress,
    });
    const after = missing();
    faults.slowReads(0);
    await runsOn(vm);
    await vm.restored.complete;
    const intercept = interceptOf(vm);
    await vm.pause();
    const second = await vm.snapshot(inFolder('second'), { mode: 'paused' });
    await vm.close();
    return {
      atOnce,
      during,
      after,
      stats,
      intercept,
      groups: second.stats.pages / 16,
      pattern: await patternOf(inFolder('snap')),
      second: await patternOf(inFolder('second')),
    };
  },

  /** The same, given up: by the caller, or by what was promised. */
  async 'given up'() {
    const vm = await start();
    const ends = [];
    for (const why of mode === 'paused' ? ['abort', 'promise', 'close'] : ['abort', 'close']) {
      faults.hold();
      const end = new AbortController();
      const promise = why === 'promise' ? { maxPauseMs: 50 } : { maxPauseMs: 60_000, signal: end.signal };
      let isSettled = false;
      const saving = vm.snapshot(inFolder('snap'), { ...how, ...promise }).then(() => undefined, told);
      void saving.then(() => (isSettled = true));
      await until(() => faults.waiting > 0);
      let closing;
      if (why === 'abort') end.abort();
      if (why === 'close') closing = vm.close();
      else await runsOn(vm); // while the disk still does not answer
      const intercept = interceptOf(vm);
      const wasHeld = faults.waiting > 0 && !isSettled;
      faults.end();
      ends.push({ why, error: await saving, wasHeld, intercept, left: readdirSync(folder) });
      await closing;
    }
    return ends;
  },
};

/** What the guest has done in so many turns of the event loop. */
async function stands(vm) {
  const from = progress(vm);
  for (let each = 0; each < 1000; each++) await turn();
  return progress(vm) === from;
}

console.log(JSON.stringify(await scenes[scene]()));
process.exit(0);

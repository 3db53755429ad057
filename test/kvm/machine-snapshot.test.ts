/** Machines saved while their guest writes at full speed, and made anew from it: the memory is that of one instant, and goes on. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { Machine, type RestoreOptions, type SnapshotOptions } from '../../lib/machine/index.js';
import { makeGuest, readU64, startGuest, until } from '../lib/machine.js';
import { CAN_PAGE, MEMORIES, MODES } from '../lib/snapshots.js';

const BASE = 0x200000;
const PAGES = 8192;
const options = { mode: 'long64', memory: '48MiB', defines: { BASE, PAGES } } as const;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'vivarium-snapshot-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
});
const inFolder = (name: string): string => path.join(folder, name);

async function restore(dir: string, more: RestoreOptions = {}): Promise<Machine> {
  const machine = await Machine.restore(dir, more);
  onTestFinished(() => machine.close());
  return machine;
}

/** The value that was written last; throws when the words are not those of one instant. */
function patternOf(machine: Machine): number {
  const words = Array.from({ length: PAGES }, (_, page) => Number(readU64(machine, BASE + 4096 * page)));
  const last = Math.max(...words);
  words.forEach((word, page) => {
    const behind = (((last - 1 - page) % PAGES) + PAGES) % PAGES;
    if (word !== Math.max(last - behind, 0)) throw new Error(`page ${page} has ${word} when ${last} was last`);
  });
  return last;
}

const progress = (machine: Machine): number => Number(readU64(machine, BASE));

async function runsOn(machine: Machine): Promise<void> {
  const from = progress(machine);
  await until(() => progress(machine) > from);
}

const WAYS: readonly SnapshotOptions[] = [
  { mode: 'paused', compress: 'none' },
  { mode: 'paused' },
  { mode: 'live', maxPauseMs: 5000 },
  { mode: 'instant' },
];

describe.each(WAYS.filter(({ mode }) => CAN_PAGE || mode !== 'instant'))('a snapshot, %j', (how) => {
  it('is of one instant, several times, and each is restored both ways and goes on', { timeout: 120_000 }, async () => {
    const machine = await startGuest('pattern', options);
    for (const [round, memory] of [...MEMORIES, ...MEMORIES, ...MEMORIES].slice(0, 3).entries()) {
      await runsOn(machine);
      const { stats, dir } = await machine.snapshot(inFolder(`s${round}`), how);
      expect(machine.state).toBe('running');
      await runsOn(machine);
      expect(stats.pages).toBe((48 * 2 ** 20) / 4096);
      expect(stats.pauseMs).toBeLessThanOrEqual(stats.totalMs);
      expect(stats.zeroPages).toBeGreaterThan(0);

      const clone = await restore(dir, { memory, start: false });
      expect(clone.state).toBe('paused');
      const saved = patternOf(clone);
      expect(saved).toBeGreaterThan(0);
      await clone.resume();
      await until(() => progress(clone) > saved);
      await clone.pause();
      expect(patternOf(clone)).toBeGreaterThan(saved);
      await clone.restored!.complete;
      await clone.close();
    }
    expect(readdirSync(folder).sort()).toEqual(['s0', 's1', 's2']);
  });
});

it('a chain of differences is restored at each of its links', { timeout: 120_000 }, async () => {
  const machine = await startGuest('pattern', options);
  const dirs: string[] = [];
  const bytes: number[] = [];
  for (let link = 0; link < 5; link++) {
    await runsOn(machine);
    await machine.pause();
    const parent = dirs.at(-1);
    const mode = MODES[link % MODES.length]!;
    const saved = await machine.snapshot(inFolder(`link${link}`), {
      mode,
      compress: 'none',
      ...(parent === undefined ? {} : { parent }),
    });
    expect(machine.state).toBe('paused');
    dirs.push(saved.dir);
    bytes.push(saved.stats.bytesWritten);
    await machine.resume();
  }
  const values: number[] = [];
  for (const dir of dirs) values.push(patternOf(await restore(dir, { start: false })));
  expect(values).toEqual([...values].sort((a, b) => a - b));
  expect(new Set(values).size).toBe(5);
  // A further link with nothing written in between has next to nothing in it.
  await machine.pause();
  await machine.snapshot(inFolder('one'), { mode: 'paused' });
  const { stats } = await machine.snapshot(inFolder('two'), { mode: 'paused', parent: inFolder('one') });
  expect(stats.bytesWritten).toBeLessThan(bytes[0]! / 4);
  const last = await restore(inFolder('two'), { start: false });
  expect(patternOf(last)).toBe(patternOf(machine));
});

it('of a machine whose own lazy restore has not ended loses no page', { timeout: 120_000 }, async () => {
  const machine = await startGuest('pattern', options);
  await runsOn(machine);
  const { dir } = await machine.snapshot(inFolder('first'));
  await machine.close();
  for (const mode of MODES) {
    const lazy = await restore(dir, { memory: MEMORIES[0] });
    await lazy.snapshot(inFolder(mode), { mode, maxPauseMs: 5000 });
    await lazy.close();
    const again = await restore(inFolder(mode), { start: false });
    expect(patternOf(again)).toBeGreaterThan(0);
    await again.close();
  }
});

it('of a restored machine is a difference to the one that it was restored from', { timeout: 60_000 }, async () => {
  const machine = await startGuest('pattern', options);
  await runsOn(machine);
  const { dir } = await machine.snapshot(inFolder('first'), { track: false });
  await expect(machine.snapshot(inFolder('no'), { parent: dir })).rejects.toMatchObject({
    code: 'ERR_SNAPSHOT_PARENT',
  });
  for (const memory of MEMORIES) {
    const clone = await restore(dir, { memory });
    await runsOn(clone);
    await clone.pause();
    const second = await clone.snapshot(inFolder(memory), { parent: dir, compress: 'none' });
    const again = await restore(second.dir, { start: false });
    expect(patternOf(again)).toBe(patternOf(clone));
    const still = await clone.snapshot(inFolder(`${memory} still`), { parent: second.dir });
    expect(still.stats.bytesWritten).toBeLessThan(second.stats.bytesWritten / 2);
    expect(patternOf(await restore(still.dir, { start: false }))).toBe(patternOf(clone));
  }
});

it('of a machine that never ran makes one that starts there', async () => {
  const machine = await makeGuest('pattern', options);
  const { dir } = await machine.snapshot(inFolder('fresh'));
  expect(machine.state).toBe('created');
  const clone = await restore(dir);
  await runsOn(clone);
  await machine.start();
  await runsOn(machine);
});

it('that is aborted at any moment leaves the guest running and no file', { timeout: 120_000 }, async () => {
  const machine = await startGuest('pattern', options);
  await runsOn(machine);
  for (const mode of MODES) {
    for (const afterMs of [0, 1, 5, 20]) {
      const saving = machine.snapshot(inFolder('never'), {
        mode,
        signal: AbortSignal.timeout(afterMs),
        maxPauseMs: 5000,
      });
      const ended = await saving.then(
        () => 'saved',
        (error: unknown) => (error as { code?: string }).code,
      );
      expect(['saved', 'ERR_ABORTED']).toContain(ended);
      expect(readdirSync(folder)).toEqual(ended === 'saved' ? ['never'] : []);
      rmSync(inFolder('never'), { recursive: true, force: true });
      expect(machine.state).toBe('running');
      await runsOn(machine);
    }
  }
});

it('queues behind another one, or is refused', async () => {
  const machine = await startGuest('pattern', options);
  const first = machine.snapshot(inFolder('a'));
  await expect(machine.snapshot(inFolder('b'), { whenBusy: 'refuse' })).rejects.toMatchObject({ code: 'ERR_STATE' });
  const second = machine.snapshot(inFolder('c'));
  await Promise.all([first, second]);
  expect(readdirSync(folder).sort()).toEqual(['a', 'c']);
});

it('is refused where something is already, of a machine that has ended, and with a parent that is not its own', async () => {
  const machine = await startGuest('pattern', options);
  await machine.snapshot(inFolder('a'));
  await expect(machine.snapshot(inFolder('a'))).rejects.toMatchObject({ code: 'ERR_SYSTEM', errno: 'EEXIST' });
  await machine.snapshot(inFolder('b'));
  await expect(machine.snapshot(inFolder('c'), { parent: inFolder('a') })).rejects.toMatchObject({
    code: 'ERR_SNAPSHOT_PARENT',
  });
  await machine.kill();
  await expect(machine.snapshot(inFolder('d'))).rejects.toMatchObject({ code: 'ERR_STATE' });
  expect(readdirSync(folder).sort()).toEqual(['a', 'b']);
  await expect(Machine.restore(inFolder('nothing'))).rejects.toMatchObject({ code: 'ERR_SNAPSHOT' });
});

it('needs userfaultfd to be instant, and its restore to be lazy: who has none is told so', async () => {
  const machine = await startGuest('pattern', options);
  await runsOn(machine);
  const { dir } = await machine.snapshot(inFolder('a'));
  const tried = [machine.snapshot(inFolder('b'), { mode: 'instant' }), restore(dir, { memory: 'lazy' })];
  const codes = (await Promise.allSettled(tried)).map((end) =>
    end.status === 'fulfilled' ? 'done' : (end.reason as { code?: string }).code,
  );
  expect(codes).toEqual(CAN_PAGE ? ['done', 'done'] : ['ERR_SNAPSHOT_REFUSED', 'ERR_SNAPSHOT_HOST']);
  // What is not asked for is what this host can do.
  await runsOn(await restore(dir));
});

it('keeps the promise of its pause or says what it would take', async () => {
  const machine = await startGuest('pattern', options);
  await runsOn(machine);
  const refused = machine.snapshot(inFolder('a'), { mode: 'paused', maxPauseMs: 0.001 });
  await expect(refused).rejects.toMatchObject({
    code: 'ERR_SNAPSHOT_REFUSED',
    cure: expect.stringMatching(/maxPauseMs|instant/) as string,
  });
  expect(readdirSync(folder)).toEqual([]);
  await runsOn(machine);
});

it('is shared by clones that go their own ways', { timeout: 60_000 }, async () => {
  const machine = await startGuest('pattern', options);
  await runsOn(machine);
  const { dir } = await machine.snapshot(inFolder('a'));
  const clones = await Promise.all(Array.from({ length: 4 }, () => restore(dir)));
  for (const clone of clones) {
    await runsOn(clone);
    await clone.pause();
    patternOf(clone);
  }
});

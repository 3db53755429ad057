/** What comes between a snapshot and its end: the machine's own end, a reset, a pause, a close, wrong options. Nothing hangs or stays. */
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Machine, SnapshotOptions } from '../../lib/machine/index.js';
import { startGuest, until } from '../lib/machine.js';
import { interceptOf, MODES, patternOf, restore, runsOn, snapshotFolder, startPattern } from '../lib/snapshots.js';

let folder: string;
beforeEach(() => void (folder = snapshotFolder()));
const inFolder = (name: string): string => path.join(folder, name);

const how = (mode: (typeof MODES)[number]): SnapshotOptions => ({ mode, maxPauseMs: 20_000, compress: 'none' });

/** What a snapshot came to, when something happens at its first sign of progress, or as soon as it was asked for. */
async function saveWhile(
  machine: Machine,
  mode: (typeof MODES)[number],
  when: 'at once' | 'in progress',
  act: () => void,
) {
  let isDone = false;
  const once = (): void => {
    if (!isDone) act();
    isDone = true;
  };
  const saving = machine.snapshot(inFolder('snap'), {
    ...how(mode),
    ...(when === 'in progress' ? { onProgress: once } : {}),
  });
  if (when === 'at once') once();
  const code = await saving.then(
    () => 'saved',
    (error: unknown) => (error as { code?: string }).code ?? String(error),
  );
  once();
  return code;
}

const cases = MODES.flatMap((mode) => (['at once', 'in progress'] as const).map((when) => [mode, when] as const));

describe.each(cases)('while a snapshot is taken, mode %s, %s,', (mode, when) => {
  it('the machine is killed: it ends, and the snapshot is whole or absent', async () => {
    const machine = await startPattern();
    let killed: Promise<unknown> | undefined;
    const code = await saveWhile(machine, mode, when, () => void (killed = machine.kill()));
    expect(['saved', 'ERR_ABORTED', 'ERR_STATE']).toContain(code);
    await killed;
    expect(await machine.wait()).toEqual({ reason: 'killed' });
    expect(readdirSync(folder)).toEqual(code === 'saved' ? ['snap'] : []);
    if (code === 'saved') expect(patternOf(await restore(inFolder('snap'), { start: false }))).toBeGreaterThan(0);
    expect(interceptOf(machine)).toBe('off');
  });

  it('the machine is closed: it closes, and nothing is left', async () => {
    const machine = await startPattern();
    let closed: Promise<unknown> | undefined;
    const code = await saveWhile(machine, mode, when, () => void (closed = machine.close()));
    expect(['saved', 'ERR_ABORTED', 'ERR_STATE']).toContain(code);
    await closed;
    expect(readdirSync(folder)).toEqual(code === 'saved' ? ['snap'] : []);
  });

  it('the machine is paused: it is, and the snapshot is of one instant', async () => {
    const machine = await startPattern();
    let paused: Promise<unknown> | undefined;
    expect(await saveWhile(machine, mode, when, () => void (paused = machine.pause()))).toBe('saved');
    await paused;
    expect(machine.state).toBe('paused');
    const clone = await restore(inFolder('snap'), { start: false });
    expect(patternOf(clone)).toBeLessThanOrEqual(patternOf(machine));
    await machine.resume();
    await runsOn(machine);
  });
});

describe.each(cases)('while a snapshot is taken, mode %s, %s, of a guest that', (mode, when) => {
  it('resets itself and starts again: it does, and no page stays protected', async () => {
    const machine = await startResetting('restart');
    const code = await saveWhile(machine, mode, when, () => tell(machine));
    expect(['saved', 'ERR_ABORTED', 'ERR_STATE']).toContain(code);
    await until(() => (machine.inspect() as { resets: number }).resets === 1);
    expect(readdirSync(folder)).toEqual(code === 'saved' ? ['snap'] : []);
    await until(() => word(machine) > 0);
    expect(interceptOf(machine)).toBe('off');
    // And it can be saved again.
    await machine.snapshot(inFolder('after'), how(mode));
  });

  it('ends: the end is its own, and the snapshot is whole or absent', async () => {
    const machine = await startResetting('end');
    const code = await saveWhile(machine, mode, when, () => tell(machine));
    expect(['saved', 'ERR_ABORTED', 'ERR_STATE']).toContain(code);
    expect(await machine.wait()).toMatchObject({ reason: 'reset' });
    expect(readdirSync(folder)).toEqual(code === 'saved' ? ['snap'] : []);
    expect(interceptOf(machine)).toBe('off');
  });
});

async function startResetting(onReset: 'end' | 'restart'): Promise<Machine> {
  const machine = await startGuest('reset-when-told', { mode: 'long64', onReset, memory: '48MiB' });
  await until(() => word(machine) > 0);
  return machine;
}

const tell = (machine: Machine): void => machine.memory.write(0x300000, Uint8Array.of(1));
const word = (machine: Machine): number => new DataView(machine.memory.read(0x200000, 4).buffer).getUint32(0, true);

/**
 * The part of the snapshot program that runs where Linux guests run: a guest of each contestant, which is saved in each mode in turn and
 * restored from what was saved. Prints one line of JSON.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type * as vivarium from 'vivarium';
import { KERNEL_WORDS } from './boot-request.js';
import { InsidePlace } from './inside-place.js';
import { connectQmp, type Qmp } from './qmp.js';
import {
  GUEST_LIVES,
  GUEST_MIB,
  GUEST_UP,
  SAVE_CONTESTANTS,
  SAVE_MODES,
  type SaveContestant,
  type SaveMode,
  type SaveRequest,
  type SaveResult,
  type SaveSample,
} from './save-request.js';

const DEADLINE_MS = 300_000;

const request = JSON.parse(process.argv[2] ?? '') as SaveRequest;
const place = new InsidePlace(request);
const kernel = place.copied(request.kernel);
const initrd = place.copied(request.initrd);
const cmdline = [...KERNEL_WORDS, 'quiet'].join(' ');
const library = path.join(path.dirname(path.dirname(place.command())), 'index.js');
const { Machine } = (await import(library)) as typeof vivarium;
process.stderr.write(`everything is in memory after ${process.uptime().toFixed(1)} s\n`);

/** A guest under way. */
interface Saver {
  /** Into the folder, which is there. */
  save(mode: SaveMode, folder: string): Promise<Pick<SaveSample, 'totalMs' | 'stopMs'>>;
  /** Milliseconds from the request to the word of a guest restored from it. The machine has ended then. */
  restore(folder: string): Promise<number>;
  /** Ends the guest. QEMU would hold this process's stderr beyond its end. */
  close(): Promise<void>;
}

const savers: Record<SaveContestant, Saver> = { vivarium: await vivariumGuest(), qemu: await qemuGuest() };
const result: SaveResult = {
  vivarium: { paused: [], live: [], instant: [] },
  qemu: { paused: [], live: [], instant: [] },
};
// The first round is not counted: code is loaded and compiled.
for (let round = -1; round < request.runs; round++) {
  for (const mode of SAVE_MODES) {
    for (let turn = 0; turn < SAVE_CONTESTANTS.length; turn++) {
      const contestant = SAVE_CONTESTANTS[(turn + round + 1) % SAVE_CONTESTANTS.length]!;
      const sample = await measured(savers[contestant], mode);
      const { totalMs, stopMs, restoreMs } = sample;
      const times = `saved in ${totalMs.toFixed(0)} ms, stopped for ${stopMs.toFixed(0)} ms, restored in ${restoreMs.toFixed(0)} ms`;
      process.stderr.write(`${round < 0 ? 'warm-up' : `round ${round + 1}`}: ${contestant} ${mode}: ${times}\n`);
      if (round >= 0) result[contestant][mode].push(sample);
    }
  }
}
for (const contestant of SAVE_CONTESTANTS) await savers[contestant].close();
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));

async function measured(saver: Saver, mode: SaveMode): Promise<SaveSample> {
  const folder = path.join(place.folder, 'saved');
  mkdirSync(folder);
  const saved = await saver.save(mode, folder);
  const bytes = filesBelow(folder).reduce((sum, file) => sum + statSync(file).size, 0);
  const restoreMs = await saver.restore(folder);
  rmSync(folder, { recursive: true });
  return { ...saved, bytes, restoreMs };
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const file = path.join(folder, entry.name);
    return entry.isDirectory() ? filesBelow(file) : [file];
  });
}

async function vivariumGuest(): Promise<Saver> {
  const machine = await Machine.create({ memory: GUEST_MIB * 2 ** 20, boot: { kernel, initrd: [initrd], cmdline } });
  await machine.start();
  await machine.console.waitFor(new RegExp(GUEST_UP), { timeoutMs: DEADLINE_MS });
  return {
    async save(mode, folder) {
      const startMs = performance.now();
      const { stats } = await machine.snapshot(path.join(folder, 'snapshot'), { mode, track: false, compress: 'none' });
      return { totalMs: performance.now() - startMs, stopMs: stats.pauseMs };
    },
    async restore(folder) {
      const startMs = performance.now();
      const restored = await Machine.restore(path.join(folder, 'snapshot'), { memory: 'lazy', track: false });
      await restored.console.waitFor(new RegExp(GUEST_LIVES), { timeoutMs: DEADLINE_MS });
      const tookMs = performance.now() - startMs;
      await restored.close();
      return tookMs;
    },
    close: () => machine.close(),
  };
}

/** QEMU, its control socket, and its guest's words. */
async function qemu(args: readonly string[], socket: string) {
  const { program, args: all, env } = place.qemu('pc', ['-m', String(GUEST_MIB), ...files(), ...args]);
  const child = spawn(program, [...all, '-qmp', `unix:${socket},server=on,wait=off`], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env,
  });
  const ended = once(child, 'close');
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  const qmp = await connectQmp(socket, () => child.exitCode !== null || child.signalCode !== null);
  return {
    qmp,
    waitFor: async (word: string): Promise<void> => {
      const deadlineMs = performance.now() + DEADLINE_MS;
      while (!text.includes(word)) {
        if (performance.now() > deadlineMs) throw new Error(`QEMU's guest does not say ${word}: ${text.slice(-500)}`);
        await once(child.stdout, 'data');
      }
    },
    async close() {
      qmp.close();
      child.kill('SIGKILL');
      await ended;
      rmSync(socket, { force: true });
    },
  };
}

function files(): string[] {
  return ['-kernel', kernel, '-initrd', initrd, '-append', cmdline];
}

interface Migration {
  readonly status?: string;
  readonly downtime?: number;
  readonly 'error-desc'?: string;
}

/** The guest's memory and state are there. */
async function whenArrived(qmp: Qmp): Promise<void> {
  for (;;) {
    const { status } = (await qmp.execute('query-migrate')) as Migration;
    if (status === 'completed') return;
    if (status === 'failed') throw new Error("QEMU can't take its own file");
    await delay(5);
  }
}

async function qemuGuest(): Promise<Saver> {
  const { qmp, waitFor, ...guest } = await qemu([], path.join(place.folder, 'qmp'));
  await waitFor(GUEST_UP);
  // Its bound for links between machines is in the way of a file.
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
  return {
    async save(mode, folder) {
      const capabilities = [{ capability: 'background-snapshot', state: mode === 'instant' }];
      await qmp.execute('migrate-set-capabilities', { capabilities });
      const startMs = performance.now();
      if (mode === 'paused') await qmp.execute('stop');
      await qmp.execute('migrate', { uri: `file:${path.join(folder, 'file')}` });
      let migration: Migration;
      do {
        await delay(5);
        migration = (await qmp.execute('query-migrate')) as Migration;
        if (migration.status === 'failed') throw new Error(`QEMU: ${mode}: ${migration['error-desc'] ?? 'failed'}`);
      } while (migration.status !== 'completed');
      const totalMs = performance.now() - startMs;
      if (mode !== 'instant') await qmp.execute('cont');
      return { totalMs, stopMs: mode === 'paused' ? totalMs : migration.downtime! };
    },
    async restore(folder) {
      const next = await qemu(['-incoming', 'defer'], path.join(place.folder, 'qmp-restored'));
      const startMs = performance.now();
      await next.qmp.execute('migrate-incoming', { uri: `file:${path.join(folder, 'file')}` });
      await whenArrived(next.qmp);
      // One that was stopped when it was saved is stopped now.
      await next.qmp.execute('cont');
      await next.waitFor(GUEST_LIVES);
      const tookMs = performance.now() - startMs;
      await next.close();
      return tookMs;
    },
    close: () => guest.close(),
  };
}

/**
 * Machines that are saved to a disk in trouble (test/lib/disk-faults.c): each call that changes a file fails once, for images and
 * contents of disks too; and a disk that does not answer for as long as the test likes. The machine goes on in any case.
 */
import { describe, expect, it } from 'vitest';
import { assemble } from '../lib/assemble.js';
import { type Attempt, runWithDiskFaults } from '../lib/disk-faults.js';
import { CAN_PAGE, MODES } from '../lib/snapshots.js';

const BASE = 0x20_0000;
const ADDRESS = 0x1_0000;
const GROUP_PAGES = 16;
type Mode = (typeof MODES)[number];

async function play<T>(scene: string, mode: Mode, pages: number, more: object = {}): Promise<T> {
  const guest = Buffer.from(assemble('pattern', ADDRESS, { BASE, PAGES: pages })).toString('base64');
  const request = { scene, mode, guest, address: ADDRESS, base: BASE, pages, ...more };
  return runWithDiskFaults<T>('machine-faults.mjs', request);
}

interface MachineAttempt extends Attempt {
  readonly state: string;
  readonly intercept: string;
  readonly root: string;
  /** Of a snapshot that came to be all the same: what its memory had, or what is wrong with it. */
  readonly pattern?: number | string;
}

type Call = readonly [call: string, file: string, number: number];
const DRAFT = '.snap.partial-*';
const written = (file: string): Call[] => ['open', 'pwrite', 'fsync'].map((call) => [call, file, 1]);

/** All that a save does to files, in order, by the codes of what it ends with. */
const CALLS: readonly (readonly [code: string | undefined, calls: readonly Call[]])[] = [
  [
    'ERR_SYSTEM',
    [
      ['mkdir', DRAFT, 1],
      ['open', `${DRAFT}/memory`, 1],
      ['pwritev', `${DRAFT}/memory`, 1],
      ['pwritev', `${DRAFT}/memory`, 2],
    ],
  ],
  // An image that can't be made is its disk's refusal.
  [
    'ERR_SNAPSHOT_REFUSED',
    [
      ...written('root.img.*.qcow2'),
      ['pwrite', 'root.img.*.qcow2', 2],
      ['ftruncate', 'root.img.*.qcow2', 1],
      ['fsync', '.', 1],
      ['fdatasync', 'root.img', 1],
    ],
  ],
  ['ERR_DISK_IMAGE', [['fdatasync', 'root.img', 2]]],
  // When it is no longer the guest's disk, and nothing was written since the last one: the guest's next flush tells.
  [undefined, [['fdatasync', 'root.img', 3]]],
  [
    'ERR_SYSTEM',
    [
      ...['disk-scratch.contents', 'disk-kept.contents', 'index', 'state', 'manifest.json'].flatMap((file) =>
        written(`${DRAFT}/${file}`),
      ),
      ['ftruncate', `${DRAFT}/memory`, 1],
      ['fdatasync', `${DRAFT}/memory`, 1],
      ['fsync', DRAFT, 1],
      ['renameat2', 'snap', 1],
      ['fsync', '.', 2],
    ],
  ],
];

it.each([...MODES.map((mode) => ['EIO', mode] as const), ['EDQUOT', 'paused'] as const])(
  '%s at any call of a save leaves the machine as it was, mode %s',
  { timeout: 120_000 },
  async (errno, mode) => {
    const calls = CALLS.flatMap(([, some]) => some);
    const codes = CALLS.flatMap(([code, some]) => some.map(() => code));
    const attempts = await play<MachineAttempt[]>('each', mode, 128, { errno, calls });
    const last = attempts.pop()!;
    expect([last.failed, last.error, typeof last.pattern]).toEqual([undefined, undefined, 'number']);
    expect(attempts).toHaveLength(calls.length);
    for (const [index, { failed, error, pattern, ...then }] of attempts.entries()) {
      const which = calls[index]!.join(' ');
      expect(failed, which).toMatchObject({ call: calls[index]![0] });
      expect(error?.code, `${which}: ${error?.message}`).toBe(codes[index]);
      if (error === undefined) {
        expect([typeof pattern, then.state, then.intercept], which).toEqual(['number', 'running', 'off']);
        continue;
      }
      expect(error.message, which).toContain(errno);
      const asBefore = { left: ['base.img', 'root.img'], state: 'running', intercept: 'off', root: 'file' };
      expect(then, which).toEqual(asBefore);
    }
  },
);

interface Held {
  readonly stood?: boolean;
  readonly held?: { readonly savedGroups: number; readonly stalls: number; readonly bufferHighWater: number };
  readonly steps?: number[];
  readonly stats: { readonly intercept?: { readonly stalls: number } };
  readonly state: string;
  readonly intercept: string;
  readonly left: string[];
  readonly pattern: number | string;
}

interface GivenUp {
  readonly why: string;
  readonly error: { readonly code: string };
  readonly wasHeld: boolean;
  readonly intercept: string;
  readonly left: string[];
}

/** Room for copies of the writer's, and of the write intercept's (save-machine.ts, writer.ts): 64 and 16 MiB. */
const ROOM_GROUPS = 1024 + 256;
/** 96 MiB that are not zero, and 2 MiB that mostly are. */
const PAGES = 24_576;
const ZERO_GROUPS = BASE / 65_536;

describe.each(MODES)('a disk that does not answer, mode %s,', (mode) => {
  it('is waited for, and the snapshot is of one instant', { timeout: 120_000 }, async () => {
    const { stood, held, steps, stats, ...after } = await play<Held>('slow', mode, PAGES);
    expect(after).toEqual({
      state: 'running',
      intercept: 'off',
      left: ['snap'],
      pattern: expect.any(Number) as number,
    });
    // Live, the guest went on meanwhile, or the script would not have ended.
    expect(stood).toBe(mode === 'live' ? undefined : true);
    if (mode !== 'instant') return;
    // No more is copied than there is room for; then the guest stands in its write, until a write of the disk's is back.
    expect(PAGES / GROUP_PAGES).toBeGreaterThan(ROOM_GROUPS);
    expect(held).toMatchObject({ bufferHighWater: 256, stalls: 1 });
    expect(held!.savedGroups).toBeGreaterThanOrEqual(ROOM_GROUPS);
    expect(held!.savedGroups).toBeLessThanOrEqual(ROOM_GROUPS + ZERO_GROUPS);
    for (const groups of steps!) expect(groups).toBeGreaterThan(0);
    expect(stats.intercept!.stalls).toBeGreaterThanOrEqual(1);
  });

  it('holds the guest no longer than the snapshot is wanted', { timeout: 120_000 }, async () => {
    const all = await play<GivenUp[]>('given up', mode, PAGES);
    const codes: Record<string, string> = {
      abort: 'ERR_ABORTED',
      promise: 'ERR_SNAPSHOT_REFUSED',
      close: 'ERR_ABORTED',
    };
    expect(all.map(({ why }) => why)).toEqual(mode === 'paused' ? ['abort', 'promise', 'close'] : ['abort', 'close']);
    for (const { why, error, ...then } of all) {
      expect([why, error.code]).toEqual([why, codes[why]]);
      // The guest ran on while the disk still held a write.
      expect(then, why).toEqual({ wasHeld: true, intercept: 'off', left: [] });
    }
  });
});

interface Faster {
  readonly refused: { readonly code: string; readonly cure: string };
  readonly stats: { readonly throttled: number };
  readonly acts: { readonly act: string; readonly end: string; readonly state: string }[];
  readonly left: string[];
  readonly patterns: (number | string)[];
}

it(
  'a guest that is faster than the disk is refused live, or slowed down where that is wanted',
  { timeout: 120_000 },
  async () => {
    const { refused, stats, acts, left, patterns } = await play<Faster>('faster', 'live', PAGES);
    expect(refused).toMatchObject({
      code: 'ERR_SNAPSHOT_REFUSED',
      cure: expect.stringContaining('throttle: true') as string,
    });
    expect(stats.throttled).toBeOneOf([0.5, 0.8, 0.95, 0.99]);
    expect(acts).toEqual([
      { act: 'pause', end: 'saved', state: 'paused' },
      { act: 'kill', end: 'ERR_ABORTED', state: 'stopped' },
    ]);
    expect(left.sort()).toEqual(['pause', 'snap']);
    expect(patterns).toEqual([expect.any(Number), expect.any(Number)]);
  },
);

interface Lazy {
  /** Groups that had not come yet: after the restore, after the snapshot's instant, after its end. */
  readonly atOnce: number;
  readonly during: number;
  readonly after: number;
  readonly stats: { readonly intercept: { readonly groups: number } };
  readonly groups: number;
  readonly intercept: string;
  readonly pattern: number | string;
  readonly second: number | string;
}

if (CAN_PAGE) {
  it.each([
    ['all of it', {}],
    ['a difference to that snapshot', { parent: true }],
  ])(
    'an instant of a machine whose memory still comes from a snapshot is not waited for: %s',
    { timeout: 120_000 },
    async (_what, more) => {
      const lazy = await play<Lazy>('lazy', 'instant', 6144, { more });
      expect(lazy).toMatchObject({
        intercept: 'off',
        pattern: expect.any(Number) as number,
        second: expect.any(Number) as number,
      });
      expect(lazy.atOnce).toBeGreaterThan(0);
      expect(lazy.during).toBeGreaterThan(0);
      // A difference needs nothing of what is missing; all the rest is that of the instant.
      if ('parent' in more) expect(lazy.after).toBeGreaterThan(0);
      else expect([lazy.after, lazy.stats.intercept.groups]).toEqual([0, lazy.groups]);
      expect(lazy.second).toBeGreaterThanOrEqual(lazy.pattern as number);
    },
  );
}

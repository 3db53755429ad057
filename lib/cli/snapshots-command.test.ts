/** `vivarium snapshots` over a store that the test plays: what is printed for people and for programs, and with which status. */
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { AbortError, VmmError } from '../base/errors.js';
import type { BrokenSnapshot, ReadOptions, SnapshotInfo, SnapshotNode } from '../snapshot/index.js';
import { FakeIo, FakeWorld, type FakeIoOptions } from './fake-world.js';
import { runMain } from './main-command.js';
import type { SnapshotsWorld } from './snapshots-command.js';

const MiB = 2 ** 20;
const info = (name: string, parentId?: string): SnapshotInfo => ({
  name,
  path: `/s/${name}`,
  id: `id-${name}`,
  createdMs: Date.UTC(2026, 0, 2, 3, 4, 5),
  memoryBytes: 256 * MiB,
  fileBytes: 70 * MiB + 12_345,
  parentId,
});
const BROKEN: BrokenSnapshot = {
  name: 'torn',
  path: '/s/torn',
  error: new VmmError('ERR_SNAPSHOT', '/s/torn/manifest.json: its digest is wrong'),
};

class FakeStore {
  readonly calls: unknown[][] = [];
  sound: SnapshotInfo[] = [info('base'), info('next', 'id-base'), info('lost', 'id-gone')];
  broken: BrokenSnapshot[] = [BROKEN];
  onVerify: (options: ReadOptions) => Promise<void> = () => Promise.resolve();
  failure: Error | undefined;

  readonly list = (dir: string) => {
    this.calls.push(['list', dir]);
    return Promise.resolve({ snapshots: this.sound, broken: this.broken });
  };
  readonly tree = (dir: string): Promise<SnapshotNode[]> => {
    this.calls.push(['tree', dir]);
    const [base, next, lost] = this.sound as [SnapshotInfo, SnapshotInfo, SnapshotInfo];
    const leaf = { children: [], parentElsewhere: false };
    const second = { ...info('second', 'id-base'), ...leaf };
    const grandchild = { ...info('third', 'id-next'), ...leaf };
    return Promise.resolve([
      { ...base, parentElsewhere: false, children: [{ ...next, ...leaf, children: [grandchild] }, second] },
      { ...lost, children: [], parentElsewhere: true },
    ]);
  };
  readonly verify = (dir: string, options: ReadOptions = {}) => {
    this.calls.push(['verify', dir]);
    return this.onVerify(options);
  };
  readonly delete = (dir: string, options: object = {}) => {
    const { children } = options as { children?: string };
    this.calls.push(['delete', dir, children]);
    return this.failure ? Promise.reject(this.failure) : Promise.resolve({ merged: ['next', 'second'] });
  };
}

async function main(argv: string[], options: { store?: FakeStore } & FakeIoOptions = {}) {
  const { store = new FakeStore(), ...rest } = options;
  const io = new FakeIo({ cwd: '/here', ...rest });
  const world: SnapshotsWorld = { clock: new ManualClock(), store };
  const running = runMain(argv, io, {
    run: () => Promise.resolve(new FakeWorld()),
    doctor: () => Promise.reject(new Error('not asked for')),
    snapshots: () => Promise.resolve(world),
    control: () => Promise.reject(new Error('not asked for')),
    dashboard: () => Promise.reject(new Error('not asked for')),
  });
  return { io, store, running };
}

async function done(argv: string[], options: { store?: FakeStore } & FakeIoOptions = {}) {
  const { io, store, running } = await main(argv, options);
  const status = await running;
  return { status, out: io.collected.text, err: io.stderr.text, store, io };
}

describe('snapshots list', () => {
  it('shows dates, sizes, parents, and what is broken', async () => {
    const { status, out, store } = await done(['snapshots', 'list', 'snaps']);
    expect(status).toBe(0);
    expect(store.calls).toEqual([['list', '/here/snaps']]);
    expect(out).toBe(`NAME  MADE                 FILES   MEMORY   PARENT
base  2026-01-02 03:04:05  70 MiB  256 MiB  -
next  2026-01-02 03:04:05  70 MiB  256 MiB  base
lost  2026-01-02 03:04:05  70 MiB  256 MiB  elsewhere
broken: torn: /s/torn/manifest.json: its digest is wrong
`);
  });

  it('is one JSON object for programs', async () => {
    const { out } = await done(['snapshots', 'list', '--json', '/s']);
    expect(JSON.parse(out)).toMatchObject({
      snapshots: [{ name: 'base' }, { name: 'next', parentId: 'id-base' }, { name: 'lost' }],
      broken: [{ name: 'torn', path: '/s/torn', code: 'ERR_SNAPSHOT', message: BROKEN.error.message }],
    });
  });

  it('shows a hostile name, and the last time that the format allows', async () => {
    const store = new FakeStore();
    store.sound = [{ ...info('a\x1b[2Jb\nc'), createdMs: 2 ** 52 }];
    store.broken = [];
    expect((await done(['snapshots', 'list', '/s'], { store })).out).toMatch(
      /^ab\?c {2}\+144683-05-23 \d\d:\d\d:\d\d /m,
    );
  });

  it('says when there are none', async () => {
    const store = new FakeStore();
    store.sound = store.broken = [];
    expect((await done(['snapshots', 'list', '/s'], { store })).out).toBe('/s: no snapshots\n');
  });
});

describe('snapshots tree', () => {
  it('puts each under its parent', async () => {
    const { out } = await done(['snapshots', 'tree', '/s']);
    expect(out.split('\n').map((line) => line.replace(/ +2026.*MiB/, ' ...'))).toEqual([
      'base ...',
      '|- next ...',
      '|  `- third ...',
      '`- second ...',
      'lost ...  its parent is elsewhere',
      'broken: torn: /s/torn/manifest.json: its digest is wrong',
      '',
    ]);
  });
});

describe('snapshots verify', () => {
  const half = { bytesDone: 128 * MiB, bytesTotal: 256 * MiB, ratePerSecond: 64 * MiB };
  const showing = (): FakeStore => {
    const store = new FakeStore();
    store.onVerify = ({ onProgress }) => Promise.resolve(onProgress?.(half));
    return store;
  };

  it('draws a bar on a terminal, with rate and estimate, and takes it away', async () => {
    const { out, err } = await done(['snapshots', 'verify', '/s/a'], { store: showing(), terminal: true });
    expect(err).toBe('\r\x1b[Kverify a [############............] 50 %, 64 MiB/s, 2 s left\r\x1b[K');
    expect(out).toBe('/s/a: every byte is as it was written\n');
  });

  it('writes lines elsewhere, and events for programs', async () => {
    expect((await done(['snapshots', 'verify', '/s/a'], { store: showing() })).err).toBe(
      'vivarium: verify a 50 %, 64 MiB/s, 2 s left\n',
    );
    const { out, io } = await done(['snapshots', 'verify', '/s/a', '--json'], { store: showing() });
    expect(io.stderr.events).toEqual([{ event: 'progress', ...half }]);
    expect(JSON.parse(out)).toEqual({ path: '/s/a', ok: true });
  });

  it('fails with what is wrong', async () => {
    const store = new FakeStore();
    store.onVerify = () => Promise.reject(new VmmError('ERR_SNAPSHOT', '/s/a/memory: group 7 has a wrong checksum'));
    const { status, err, out } = await done(['snapshots', 'verify', '/s/a'], { store });
    expect([status, err, out]).toEqual([125, 'vivarium: /s/a/memory: group 7 has a wrong checksum\n', '']);
  });

  it('ends by a signal with its status', async () => {
    const store = new FakeStore();
    const begun = new Promise<void>((resolve) => {
      store.onVerify = ({ signal }) =>
        new Promise((_, reject) => {
          signal?.addEventListener('abort', () => reject(new AbortError(signal)), { once: true });
          resolve();
        });
    });
    const { io, running } = await main(['snapshots', 'verify', '/s/a'], { store });
    await begun;
    io.signal('SIGINT');
    expect(await running).toBe(130);
    expect(io.takesSignals).toBe(false);
  });
});

describe('snapshots delete', () => {
  it('names who has taken over', async () => {
    const { out, store } = await done(['snapshots', 'delete', 'a']);
    expect(store.calls).toEqual([['delete', '/here/a', 'merge']]);
    expect(out).toBe('/here/a: deleted; next, second have taken over what was needed\n');
    expect(JSON.parse((await done(['snapshots', 'delete', 'a', '--json'])).out)).toEqual({
      deleted: '/here/a',
      merged: ['next', 'second'],
    });
  });

  it('may be refused', async () => {
    const store = new FakeStore();
    store.failure = new VmmError('ERR_SNAPSHOT_REFUSED', '/s/a: b stands on it', { cure: 'delete it first' });
    const { status, err } = await done(['snapshots', 'delete', '--children', 'refuse', '/s/a'], { store });
    expect(store.calls).toEqual([['delete', '/s/a', 'refuse']]);
    expect([status, err]).toEqual([125, 'vivarium: /s/a: b stands on it\nvivarium: to cure it: delete it first\n']);
  });
});

it.each([
  [['snapshots'], 'snapshots: one of list, tree, verify, delete is wanted; vivarium snapshots --help tells more'],
  [['snapshots', 'lst', '/s'], "unknown command 'lst'; did you mean 'list'?; vivarium snapshots --help tells more"],
  [['snapshots', 'list'], "missing required argument 'dir'; vivarium snapshots --help tells more"],
  [['snapshots', 'list', 'a', 'b'], 'snapshots: too many arguments; vivarium snapshots --help tells more'],
  [
    ['snapshots', 'list', '--jsn', 'a'],
    "unknown option '--jsn'; did you mean '--json'?; vivarium snapshots --help tells more",
  ],
  [['snapshots', 'delete', '--children', 'eat', 'a'], "--children: 'eat' is none of merge, refuse"],
  [['snapshots', 'list', 'a', '--', 'b'], 'snapshots: there is nothing to put after --'],
])('refuses %j', async (argv, message) => {
  const { status, err } = await done(argv);
  expect([status, err]).toEqual([125, `vivarium: ${message}\n`]);
});

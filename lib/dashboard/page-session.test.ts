import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AbortError, VmmError } from '../base/errors.js';
import type { ListedMachine } from '../control/index.js';
import { makeMemory, fillMemory, save } from '../snapshot/testing.js';
import { GROUP_BYTES } from '../snapshot/index.js';
import { BUSY_BYTES, PageSession, type PageSocket } from './page-session.js';
import { Polled } from './polled.js';
import { StatsWatches } from './stats-watches.js';
import { TestDashboard, type ServedFake, type TestPage } from './testing.js';

/** Looked at often, and for as long as a loaded machine may take: some looks move a clock. */
const poll = <T>(look: () => T) => expect.poll(look, { timeout: 20_000, interval: 10 });

let test: TestDashboard;
beforeEach(async () => {
  test = await new TestDashboard().start();
});
afterEach(() => test.done());

const frame = (channel: number, text: string): Buffer => {
  const header = Buffer.alloc(4);
  header.writeUInt32BE(channel);
  return Buffer.concat([header, Buffer.from(text)]);
};

/** Beats of a machine's clock until so many looks have come. */
async function looks(page: TestPage, served: ServedFake, count: number): Promise<void> {
  await poll(() => {
    served.clock.advance(100_000_000n);
    return page.all('stats').length;
  }).toBeGreaterThanOrEqual(count);
}

describe('the machines', () => {
  it('are listed, and again when that has changed', async () => {
    const box = await test.serve('box');
    const page = await test.open();
    await poll(() => page.messages.map(({ type }) => type)).toContain('machines');
    expect(page.messages[0]).toEqual({ type: 'hello', snapshots: test.snapshots });
    const names = () =>
      page
        .all('machines')
        .at(-1)
        ?.machines.map(({ name, state }) => `${name} ${state}`);
    expect(names()).toEqual(['box running']);
    await test.serve('other');
    await poll(() => {
      test.clock.advance(1_000_000_000n);
      return names();
    }).toEqual(['box running', 'other running']);
    await box.end();
    await poll(() => {
      test.clock.advance(1_000_000_000n);
      return names();
    }).toEqual(['other running']);
  });

  it('do what they are told, and refusals come back', async () => {
    const { machine } = await test.serve('box');
    const page = await test.open();
    const answers = () => page.all('answer');
    page.send({ type: 'ask', id: 1, ask: { what: 'pause', name: 'box' } });
    await poll(answers).toEqual([{ type: 'answer', id: 1 }]);
    expect(machine.state).toBe('paused');
    page.send({ type: 'ask', id: 2, ask: { what: 'resume', name: 'box' } });
    await poll(answers).toHaveLength(2);
    page.send({ type: 'ask', id: 3, ask: { what: 'resume', name: 'box' } });
    await poll(answers).toHaveLength(3);
    expect(answers().at(-1)).toMatchObject({ id: 3, failure: { code: 'ERR_STATE' } });
    page.send({ type: 'ask', id: 4, ask: { what: 'kill', name: 'nobody' } });
    await poll(answers).toHaveLength(4);
    expect(answers().at(-1)).toMatchObject({ id: 4, failure: { code: 'ERR_NO_MACHINE' } });
    expect(machine.calls).toEqual(['pause', 'resume']);
  });
});

it('does not wait without end for a machine that does not answer', async () => {
  const page = await test.open();
  test.onConnect = (_name, signal) =>
    new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new AbortError(signal))));
  page.send({ type: 'ask', id: 1, ask: { what: 'kill', name: 'box' } });
  await poll(() => {
    test.clock.advance(1_000_000_000n);
    return page.all('answer');
  }).toMatchObject([{ id: 1, failure: { code: 'ERR_TIMEOUT', message: 'box does not answer' } }]);
});

describe('a watch', () => {
  it('hands on each look, and is open only while a page looks', async () => {
    const served = await test.serve('box');
    served.machine.written = [3, 0, 1];
    const pages = [await test.open(), await test.open()];
    for (const page of pages) page.send({ type: 'watch', name: 'box', beat: 'fast' });
    for (const page of pages) await looks(page, served, 2);
    expect(test.dashboard.watches).toBe(1);
    expect(served.machine.calls).toEqual(['watchWrites']);
    const [first] = pages[0]!.all('stats');
    expect(first).toMatchObject({
      name: 'box',
      beat: 'fast',
      stats: { state: 'running', pit: { programmedHz: 250 }, writes: { bucketBytes: GROUP_BYTES } },
    });
    pages[0]!.send({ type: 'unwatch', name: 'box', beat: 'fast' });
    await looks(pages[1]!, served, pages[1]!.all('stats').length + 2);
    expect(test.dashboard.watches).toBe(1);
    pages[1]!.socket.close();
    await poll(() => test.dashboard.watches).toBe(0);
    await poll(() => served.machine.calls).toEqual(['watchWrites', 'unwatch']);
  });

  it('at a glance notes no writes', async () => {
    const served = await test.serve('box');
    const page = await test.open();
    page.send({ type: 'watch', name: 'box', beat: 'slow' });
    await poll(() => page.all('stats')).toHaveLength(1);
    expect(page.all('stats')[0]?.stats.writes).toBeUndefined();
    expect(served.machine.calls).toEqual([]);
  });

  it('of a machine that ends tells so, after its last look', async () => {
    const served = await test.serve('box');
    const page = await test.open();
    page.send({ type: 'watch', name: 'box', beat: 'fast' });
    await looks(page, served, 1);
    await served.end();
    await poll(() => page.all('watch-ended')).toEqual([{ type: 'watch-ended', name: 'box', beat: 'fast' }]);
    expect(page.all('stats').at(-1)?.stats.state).toBe('stopped');
    expect(test.dashboard.watches).toBe(0);
  });

  it('of nobody says why', async () => {
    const page = await test.open();
    page.send({ type: 'watch', name: 'nobody', beat: 'slow' });
    await poll(() => page.all('watch-ended')).toHaveLength(1);
    expect(page.all('watch-ended')[0]).toMatchObject({ name: 'nobody', failure: { code: 'ERR_NO_MACHINE' } });
  });
});

describe('a console', () => {
  it('shows what was and what comes, to each page, and takes what is typed', async () => {
    const { machine } = await test.serve('box');
    machine.print('before ');
    const [one, two] = [await test.open(), await test.open()];
    one.send({ type: 'open-console', channel: 7, name: 'box' });
    two.send({ type: 'open-console', channel: 9, name: 'box' });
    // Typed while it is being opened.
    one.socket.send(frame(7, 'early '));
    await poll(() => [one.shown, two.shown]).toEqual(['before ', 'before ']);
    machine.print('after');
    await poll(() => [one.shown, two.shown]).toEqual(['before after', 'before after']);
    expect(one.frames[0]!.readUInt32BE(0)).toBe(7);
    one.socket.send(frame(7, 'typed'));
    await poll(() => machine.typed).toBe('early typed');
    one.send({ type: 'close-console', channel: 7 });
    two.socket.send(frame(9, '!'));
    await poll(() => machine.typed).toBe('early typed!');
  });

  it('ends with its machine', async () => {
    const served = await test.serve('box');
    const page = await test.open();
    page.send({ type: 'open-console', channel: 1, name: 'box' });
    served.machine.print('last words');
    await poll(() => page.shown).toBe('last words');
    await served.end();
    await poll(() => page.all('console-ended')).toMatchObject([{ type: 'console-ended', channel: 1 }]);
  });

  it('of a guest that takes nothing drops what is typed, within bounds, and says so', async () => {
    const { machine } = await test.serve('box');
    machine.consoleIsFull = true;
    const page = await test.open();
    page.send({ type: 'open-console', channel: 1, name: 'box' });
    machine.print('ready');
    await poll(() => page.shown).toBe('ready');
    const piece = 'x'.repeat(16 * 1024);
    await poll(() => {
      for (let count = 0; count < 64; count++) page.socket.send(frame(1, piece));
      return page.all('console-full').length;
    }).toBeGreaterThan(0);
    expect(page.all('console-full')[0]).toEqual({ type: 'console-full', channel: 1, lostBytes: piece.length });
  });
});

/** A browser that takes nothing while `stands`. */
class SlowSocket implements PageSocket {
  bufferedAmount = 0;
  stands = true;
  terminated = false;
  readonly sent: (Buffer | string)[] = [];
  #waiting: (() => void)[] = [];

  send(data: Buffer | string, _options: { binary: boolean }, onGone: () => void = () => undefined): void {
    this.sent.push(data);
    if (!this.stands) return onGone();
    this.bufferedAmount += data.length;
    this.#waiting.push(onGone);
  }

  takeAll(): void {
    this.stands = false;
    this.bufferedAmount = 0;
    for (const gone of this.#waiting.splice(0)) gone();
  }

  get consoleBytes(): number {
    return this.sent.reduce((sum, data) => sum + (typeof data === 'string' ? 0 : data.length - 4), 0);
  }

  close(): void {
    this.terminated = true;
  }

  terminate(): void {
    this.terminated = true;
  }
}

describe('a slow browser', () => {
  let socket: SlowSocket;
  let session: PageSession;
  let watches: StatsWatches;
  beforeEach(() => {
    socket = new SlowSocket();
    watches = new StatsWatches(test.world);
    session = new PageSession(socket, {
      world: test.world,
      watches,
      machines: new Polled<readonly ListedMachine[]>({
        clock: test.clock,
        everyMs: 1000,
        ask: () => Promise.resolve(undefined),
      }),
      shelf: undefined,
      signal: new AbortController().signal,
    });
  });
  afterEach(() => session.end());

  it('misses looks, and has no backlog of them', async () => {
    const served = await test.serve('box');
    session.takeText(JSON.stringify({ type: 'watch', name: 'box', beat: 'fast' }));
    const stats = () => socket.sent.filter((data) => data.includes('"type":"stats"')).length;
    const beat = (): number => {
      served.clock.advance(100_000_000n);
      return stats();
    };
    await poll(beat).toBeGreaterThan(1);
    socket.bufferedAmount = BUSY_BYTES;
    const before = stats();
    let seen = 0;
    const leave = watches.join('box', 'fast', { take: () => seen++, ended: () => undefined });
    await poll(() => {
      beat();
      return seen;
    }).toBeGreaterThan(20);
    leave();
    expect(stats()).toBe(before);
    socket.takeAll();
    await poll(beat).toBeGreaterThan(before);
  });

  it('does not hold the guest: the console stands, loses the oldest, and goes on', async () => {
    const { machine } = await test.serve('box');
    session.takeText(JSON.stringify({ type: 'open-console', channel: 1, name: 'box' }));
    machine.print('first');
    await poll(() => socket.consoleBytes).toBe(5);
    const MiB = 1024 * 1024;
    const size = 8 * MiB;
    for (let at = 0; at < size; at += 64 * 1024) machine.print(Buffer.alloc(64 * 1024, 0x2e));
    machine.print('last');
    // All of it has been taken from the guest by those who look after it.
    const other = await test.open();
    other.send({ type: 'open-console', channel: 2, name: 'box' });
    await poll(() => other.shown.endsWith('last')).toBe(true);
    expect(socket.bufferedAmount).toBeLessThan(BUSY_BYTES + 2 * 64 * 1024);
    socket.takeAll();
    const shown = () => Buffer.concat(socket.sent.filter((data) => Buffer.isBuffer(data))).toString('latin1');
    await poll(() => shown().endsWith('last')).toBe(true);
    expect(shown()).toContain('bytes are left out');
    expect(socket.consoleBytes).toBeLessThan(size);
  });

  it('that takes nothing at all is cut off', async () => {
    socket.bufferedAmount = 1024 ** 3;
    session.takeText(JSON.stringify({ type: 'ask', id: 1, ask: { what: 'delete', snapshot: 'any' } }));
    await poll(() => socket.terminated).toBe(true);
  });
});

describe('what is no message', () => {
  it.each([
    'no JSON',
    '{"type":"format-disk"}',
    '{"type":"watch","name":"box"}',
    '{"type":"watch","name":"box","beat":"fast","more":1}',
    '{"type":"ask","id":1,"ask":{"what":"delete","snapshot":"../there"}}',
    '{"type":"ask","id":1,"ask":{"what":"delete","snapshot":".hidden"}}',
    '{"type":"ask","id":1,"ask":{"what":"restore","snapshot":"a/b","name":"box"}}',
    '{"type":"ask","id":1,"ask":{"what":"save","name":"box","snapshot":"","mode":"live"}}',
    '{"type":"open-console","channel":-1,"name":"box"}',
  ])('ends the page: %s', async (text) => {
    const page = await test.open();
    page.socket.send(text);
    expect(await page.closed).toBe(1008);
  });

  it('is also what is too long', async () => {
    const page = await test.open();
    page.socket.send(Buffer.alloc(65 * 1024));
    expect(await page.closed).toBe(1009);
  });
});

describe('the snapshots', () => {
  const at = (name: string): string => path.join(test.snapshots, name);
  const make = async (name: string, parent?: string): Promise<void> => {
    const memory = makeMemory(4 * GROUP_BYTES);
    fillMemory(memory, 1);
    await save(at(name), memory, parent === undefined ? {} : { parent: at(parent), groups: [1] });
    memory.close();
  };
  const answered = async (page: TestPage, id: number) => {
    await poll(() => page.all('answer').some((answer) => answer.id === id)).toBe(true);
    return page.all('answer').find((answer) => answer.id === id)!.failure;
  };

  it('are shown as a tree, with what is broken, and again when one is new', async () => {
    await make('first');
    await make('second', 'first');
    mkdirSync(at('damaged'));
    writeFileSync(path.join(at('damaged'), 'manifest.json'), 'no manifest');
    const page = await test.open();
    const last = () => page.all('snapshots').at(-1);
    await poll(last).toBeDefined();
    expect(last()).toMatchObject({
      roots: [{ name: 'first', memoryBytes: 4 * GROUP_BYTES, children: [{ name: 'second', children: [] }] }],
      broken: [{ name: 'damaged' }],
    });
    await make('third');
    await poll(() => {
      test.clock.advance(2_000_000_000n);
      return last()?.roots.map(({ name }) => name);
    }).toEqual(['first', 'third']);
  });

  it('are deleted, and their children keep what they need', async () => {
    await make('first');
    await make('second', 'first');
    const page = await test.open();
    page.send({ type: 'ask', id: 1, ask: { what: 'delete', snapshot: 'first' } });
    expect(await answered(page, 1)).toBeUndefined();
    await poll(() =>
      page
        .all('snapshots')
        .at(-1)
        ?.roots.map(({ name }) => name),
    ).toEqual(['second']);
    await test.world.store.tree(test.snapshots);
    page.send({ type: 'ask', id: 2, ask: { what: 'delete', snapshot: 'first' } });
    expect(await answered(page, 2)).toMatchObject({ code: expect.stringMatching(/^ERR_S/) as string });
  });

  it('are restored under a name, with progress, and failures are told', async () => {
    await make('first');
    const page = await test.open();
    test.onRestore = (_dir, _name, { onProgress }) => {
      onProgress('starting');
      return Promise.resolve();
    };
    page.send({ type: 'ask', id: 1, ask: { what: 'restore', snapshot: 'first', name: 'again' } });
    expect(await answered(page, 1)).toBeUndefined();
    expect(page.all('progress')).toEqual([{ type: 'progress', id: 1, text: 'starting' }]);
    expect(test.restores).toEqual([{ dir: at('first'), name: 'again' }]);
    test.onRestore = () => Promise.reject(new VmmError('ERR_NAME_TAKEN', 'taken', { cure: 'another' }));
    page.send({ type: 'ask', id: 2, ask: { what: 'restore', snapshot: 'first', name: 'again' } });
    expect(await answered(page, 2)).toEqual({ code: 'ERR_NAME_TAKEN', message: 'taken', cure: 'another' });
  });

  it('are taken of a machine, whose looks tell how far it is', async () => {
    const served = await test.serve('box');
    const { machine } = served;
    let finish = (): void => undefined;
    const asked: unknown[] = [];
    machine.onSnapshot = (dir, { onProgress, mode, parent }) => {
      asked.push({ dir, mode, parent });
      onProgress?.({ bytesDone: 1024, bytesTotal: 4096, ratePerSecond: 1 });
      return new Promise((resolve) => (finish = () => resolve({ dir, id: 'abc', stats: {} as never })));
    };
    const page = await test.open();
    page.send({ type: 'watch', name: 'box', beat: 'fast' });
    page.send({ type: 'ask', id: 1, ask: { what: 'save', name: 'box', snapshot: 'new', mode: 'live', parent: 'old' } });
    await poll(() => {
      served.clock.advance(100_000_000n);
      return page.all('stats').at(-1)?.stats.saves;
    }).toEqual([{ dir: at('new'), bytesDone: 1024, bytesTotal: 4096 }]);
    finish();
    expect(await answered(page, 1)).toBeUndefined();
    expect(asked).toEqual([{ dir: at('new'), mode: 'live', parent: at('old') }]);
  });

  it('want a folder', async () => {
    await test.dashboard.close();
    await test.start({ shelf: false });
    const page = await test.open();
    page.send({ type: 'ask', id: 1, ask: { what: 'delete', snapshot: 'any' } });
    expect(await answered(page, 1)).toMatchObject({
      code: 'ERR_STATE',
      cure: expect.stringContaining('--snapshots') as string,
    });
    expect(page.messages[0]).toEqual({ type: 'hello', snapshots: null });
    expect(page.all('snapshots')).toEqual([]);
  });
});

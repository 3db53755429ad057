import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import { requestChannel } from '../../base/probes.js';
import { probed, toldNobody } from '../../base/testing-probes.js';
import { HostVector } from '../../memory/io-vector.js';
import type { BlockBackend, BlockDone } from './contract.js';
import { ended } from './disk-model.js';
import { faultyDisk } from './faulty.js';
import { memoryDisk } from './memory.js';
import { BlockProvider, type BlockProviderOptions } from './provider.js';
import type { BlockSource } from './source.js';
import { TestingEngine } from './testing-engine.js';

const SIZE = 64 * 1024;
const open = (source: BlockSource, options: Partial<BlockProviderOptions> = {}) =>
  BlockProvider.open(source, { id: 'data', engine: new TestingEngine(), logger: silentLogger, ...options });
const bytes = (length: number, value = 0) => new HostVector(new Uint8Array(length).fill(value));

/** A source with one hand-made backend; requests end when the test says so. */
function byHand(change: Partial<BlockBackend> = {}): { source: BlockSource; pending: [string, BlockDone][] } {
  const pending: [string, BlockDone][] = [];
  const backend: BlockBackend = {
    geometry: { sizeBytes: SIZE, blockBytes: 512, physicalBlockBytes: 512, optimalIoBytes: 0 },
    read: (offset, _data, done) => pending.push([`read ${offset}`, done]),
    write: (offset, _data, done) => pending.push([`write ${offset}`, done]),
    describe: () => ({ kind: 'by-hand' }),
    close: () => Promise.resolve(),
    ...change,
  };
  return {
    source: { class: 'block', describe: () => backend.describe(), open: () => Promise.resolve(backend) },
    pending,
  };
}

describe('BlockProvider', () => {
  it('counts calls, errors and time of each function', async () => {
    const clock = new ManualClock();
    const disk = await open(
      faultyDisk(memoryDisk(SIZE), {
        clock,
        rules: [
          { on: 'read', nth: 1, fault: { delayNs: 300n } },
          { on: 'write', fault: { error: 'no-space' } },
        ],
      }),
      { clock },
    );
    const read = ended((done) => disk.read(0, bytes(512), done));
    clock.advance(300n);
    await read;
    expect((await ended((done) => disk.write(0, bytes(512), done)))?.code).toBe('no-space');
    expect(disk.contract.functions).toMatchObject({
      read: { calls: 1, errors: 0, ns: 300, by: 'native' },
      write: { calls: 1, errors: 1, ns: 0 },
      flush: { by: 'emulated' },
    });
    expect(disk.contract.backend).toMatchObject({ kind: 'faulty', disk: { kind: 'memory' } });
    await disk.close();
  });

  it('tells a probe of each request that has ended, and makes nothing for nobody', async () => {
    const clock = new ManualClock();
    const rules = [
      { on: 'read', nth: 3, fault: { delayNs: 300n } },
      { on: 'write', fault: { error: 'no-space' } },
    ] as const;
    const disk = await open(faultyDisk(memoryDisk(SIZE), { clock, rules }), { clock, machine: 'box' });
    const reads = () => ended((done) => disk.read(0, bytes(512), done));
    expect(await toldNobody(requestChannel, () => Promise.all([reads(), reads()]))).toBe(0);
    const seen = await probed(requestChannel, async () => {
      const read = reads();
      clock.advance(300n);
      await read;
      await ended((done) => disk.write(512, bytes(1024), done));
      await ended((done) => disk.flush(done));
      await ended((done) => disk.read(SIZE, bytes(512), done));
    });
    const about = { machine: 'box', device: 'data', class: 'block', error: undefined };
    expect(seen).toEqual([
      { ...about, function: 'read', bytes: 512, ns: 300, by: 'native' },
      { ...about, function: 'write', bytes: 1024, ns: 0, by: 'native', error: 'no-space' },
      { ...about, function: 'flush', bytes: 0, ns: 0, by: 'emulated' },
      { ...about, function: 'read', bytes: 512, ns: 0, by: 'native', error: 'out-of-range' },
    ]);
    await disk.close();
  });

  it('orders requests that overlap, and only those', async () => {
    const { source, pending } = byHand();
    const disk = await open(source);
    const order: string[] = [];
    const note =
      (name: string): BlockDone =>
      () =>
        order.push(name);
    disk.write(0, bytes(1024), note('a'));
    disk.read(512, bytes(1024), note('b'));
    disk.read(512, bytes(512), note('c'));
    disk.write(1024, bytes(512), note('d'));
    disk.write(4096, bytes(512), note('e'));
    expect(pending.map(([what]) => what)).toEqual(['write 0', 'write 4096']);
    pending.splice(0, 1)[0]![1](undefined);
    expect(pending.map(([what]) => what)).toEqual(['write 4096', 'read 512', 'read 512']);
    pending.splice(1, 1)[0]![1](undefined);
    expect(pending.map(([what]) => what)).toEqual(['write 4096', 'read 512', 'write 1024']);
    for (const [, done] of pending.splice(0)) done(undefined);
    expect(order).toEqual(['a', 'b', 'e', 'c', 'd']);
    await disk.close();
  });

  it('lets a flush wait for the changes before it, where the backend has none, and for nothing else', async () => {
    const { source, pending } = byHand();
    const disk = await open(source);
    let flushed = false;
    disk.write(0, bytes(512), () => {});
    disk.read(512, bytes(512), () => {});
    disk.flush(() => (flushed = true));
    disk.write(1024, bytes(512), () => {});
    pending.pop()![1](undefined);
    expect(flushed).toBe(false);
    pending.shift()![1](undefined);
    expect(flushed).toBe(true);
    pending.pop()![1](undefined);
    await disk.close();
  });

  it('emulates what turns out to be unsupported, from the first request on', async () => {
    let asked = 0;
    const unsupported = (done: BlockDone): void => {
      asked++;
      done({ code: 'unsupported', message: 'no' });
    };
    const { source, pending } = byHand({
      discard: (_offset, _length, done) => unsupported(done),
      writeZeroes: (_offset, _length, _mayUnmap, done) => unsupported(done),
    });
    const disk = await open(source);
    expect(disk.contract.functions).toMatchObject({ discard: { by: 'native' }, 'write-zeroes': { by: 'native' } });
    for (let i = 0; i < 2; i++) {
      expect(await ended((done) => disk.discard(0, 512, done))).toBeUndefined();
      const zeroed = ended((done) => disk.writeZeroes(0, 512, true, done));
      pending.pop()![1](undefined);
      expect(await zeroed).toBeUndefined();
    }
    expect(asked).toBe(2);
    expect(disk.contract.functions).toMatchObject({
      discard: { by: 'emulated', calls: 2, errors: 0 },
      'write-zeroes': { by: 'emulated', calls: 2, errors: 0 },
    });
    await disk.close();
  });

  it('survives a backend that completes a request twice', async () => {
    const logged: string[] = [];
    const { source, pending } = byHand();
    const disk = await open(source, { logger: { log: (_level, message) => logged.push(message) } });
    let ends = 0;
    disk.read(0, bytes(512), () => ends++);
    const [, done] = pending.pop()!;
    done(undefined);
    done(undefined);
    expect(ends).toBe(1);
    expect(logged).toEqual(['disk data: a backend completed a request twice']);
    await disk.close();
  });

  it('refuses a backend that can only be read, unless that is what is wanted', async () => {
    const fixed = faultyDisk(memoryDisk(SIZE), { without: ['write'] });
    await expect(open(fixed)).rejects.toMatchObject({
      code: 'ERR_DISK_IMAGE',
      cure: expect.stringContaining('copyOnWrite'),
    });
    await (await open(fixed, { readOnly: true })).close();
    await (await open(fixed, { copyOnWrite: { maxBytes: 4096 } })).close();
  });

  it('fails writes beyond the bound of copy-on-write, and changes nothing then', async () => {
    const disk = await open(memoryDisk(SIZE), { copyOnWrite: { maxBytes: 8192 } });
    expect((await ended((done) => disk.write(0, bytes(12288, 1), done)))?.code).toBe('no-space');
    const data = bytes(12288, 0xa5);
    await ended((done) => disk.read(0, data, done));
    expect(data.bytes.every((byte) => byte === 0)).toBe(true);
    expect(await ended((done) => disk.write(0, bytes(8192, 1), done))).toBeUndefined();
    expect((await ended((done) => disk.write(8192, bytes(512, 1), done)))?.code).toBe('no-space');
    expect(await ended((done) => disk.discard(0, 4096, done))).toBeUndefined();
    expect((await ended((done) => disk.write(8192, bytes(512, 1), done)))?.code).toBe('no-space');
    expect(disk.contract.backend).toMatchObject({ kind: 'copy-on-write', usedBytes: 4096 + 64 });
    expect(disk.contract.functions).toMatchObject({ write: { by: 'emulated' }, discard: { by: 'emulated' } });
    await disk.close();
  });

  it.each([
    ['given', { serial: ' fixed ' }, 'S1', 'fixed', 'emulated'],
    ["the medium's own", {}, 'WD-77\n', 'WD-77', 'emulated'],
    ["the medium's own, as it is", {}, 'WD-77', 'WD-77', 'native'],
    ['of the id', {}, undefined, 'data', 'emulated'],
    ['of a long id', { id: 'a-very-long-identifier-of-a-disk' }, undefined, /^a-very-long-[0-9a-f]{8}$/, 'emulated'],
    ['of an id that is no ASCII', { id: 'Wurzel\u00fc' }, undefined, /^Wurzel-[0-9a-f]{8}$/, 'emulated'],
  ])('shows the serial number %s', async (_what, options, own, wanted, by) => {
    const { source } = byHand(own === undefined ? {} : { identify: () => own });
    const disk = await open(source, options);
    if (typeof wanted === 'string') expect(disk.identify()).toBe(wanted);
    else expect(disk.identify()).toMatch(wanted);
    expect(disk.contract.functions).toMatchObject({ identify: { by, calls: 1 } });
    await disk.close();
  });

  it('makes no call of the backend for what is held when it is closed', async () => {
    const { source, pending } = byHand();
    const disk = await open(source);
    await disk.prepare();
    const held = ended((done) => disk.read(0, bytes(512), done));
    await disk.close();
    expect((await held)?.code).toBe('closed');
    expect(pending).toEqual([]);
    await expect(disk.rebind(source)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });
});

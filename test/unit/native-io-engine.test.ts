/**
 * The I/O engine on the built addon, which needs no KVM: both kinds, and the fake beside them where the contract is the
 * same, against a plain model of a file; errors, order, splitting, and closing at every moment.
 */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants as flags,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { afterAll, describe, expect, it, onTestFinished } from 'vitest';
import { gpa as toGpa } from '../../lib/base/address.js';
import { FakeIoEngine } from '../../lib/memory/fake-io-engine.js';
import { FakeGuestMemory } from '../../lib/memory/fake.js';
import {
  AddressSpace,
  GuestVector,
  HostVector,
  NativeIoEngine,
  type IoEngine,
  type IoVector,
} from '../../lib/memory/index.js';

const { EBADF, ECANCELED, EFAULT, ENOSPC } = constants.errno;
const MiB = 1024 * 1024;
const kinds = ['io_uring', 'threads'] as const;

const folder = mkdtempSync(join(tmpdir(), 'vivarium-io-'));
afterAll(() => rmSync(folder, { recursive: true }));
let files = 0;

function openFile(content: Uint8Array | string = ''): { fd: number; path: string } {
  const path = join(folder, `file-${++files}`);
  writeFileSync(path, content);
  const fd = openSync(path, 'r+');
  onTestFinished(() => closeSync(fd));
  return { fd, path };
}

/** Both ends in one descriptor: reads wait until the test writes. */
function openFifo(): number {
  const path = join(folder, `fifo-${++files}`);
  execFileSync('mkfifo', [path]);
  const fd = openSync(path, 'r+');
  onTestFinished(() => closeSync(fd));
  return fd;
}

function makeMemory(sizeBytes = MiB): AddressSpace {
  const memory = new AddressSpace({
    ranges: [
      { gpa: toGpa(0), sizeBytes: sizeBytes / 2 },
      { gpa: toGpa(16 * MiB), sizeBytes: sizeBytes / 2 },
    ],
  });
  onTestFinished(() => memory.close());
  return memory;
}

function makeEngine(memory: AddressSpace, kind: (typeof kinds)[number] | 'fake'): IoEngine {
  const engine = kind === 'fake' ? new FakeIoEngine() : new NativeIoEngine(memory, { kind });
  onTestFinished(() => engine.close());
  expect(engine.kind).toBe(kind);
  return engine;
}

const read = (engine: IoEngine, fd: number, offset: number, data: IoVector) =>
  new Promise<number>((resolve) => engine.read(fd, offset, data, resolve));
const write = (engine: IoEngine, fd: number, offset: number, data: IoVector) =>
  new Promise<number>((resolve) => engine.write(fd, offset, data, resolve));
const bytesOf = (vector: IoVector): Uint8Array => {
  const bytes = new Uint8Array(vector.lengthBytes);
  vector.copyTo(bytes);
  return bytes;
};
// Quicker than toEqual() on so many bytes.
const same = (left: Uint8Array, right: Uint8Array) => Buffer.compare(left, right) === 0;
const pattern = (length: number, seed = 0) =>
  Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8) + seed) & 0xff);

describe.each([...kinds, 'fake'] as const)('an engine of kind %s', (kind) => {
  it('keeps a file as the model of one', async () => {
    const memory = makeMemory();
    const engine = makeEngine(memory, kind);
    const offset = fc.integer({ min: 0, max: 40_000 });
    const lengths = fc.array(fc.integer({ min: 0, max: 9000 }), { minLength: 1, maxLength: 6 });
    const step = fc.record({
      op: fc.constantFrom('read', 'write', 'punch-hole', 'zero-range', 'sync'),
      host: fc.boolean(),
      offset,
      lengths,
      seed: fc.nat(255),
    });
    const vectorOf = (piecesBytes: number[], host: boolean): IoVector =>
      host
        ? new HostVector(new Uint8Array(piecesBytes.reduce((sum, length) => sum + length, 0)))
        : new GuestVector(
            memory,
            piecesBytes.map((_, at) => (at % 2) * 16 * MiB + (piecesBytes.length - at) * 10_000 + at),
            piecesBytes,
          );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
        const path = join(folder, `model-${++files}`);
        writeFileSync(path, '');
        const fd = openSync(path, 'r+');
        let model = new Uint8Array(0);
        try {
          for (const { op, host, offset: at, lengths: pieces, seed } of steps) {
            const data = vectorOf(pieces, host);
            const total = data.lengthBytes;
            if (op === 'write') {
              data.copyFrom(pattern(total, seed));
              expect(await write(engine, fd, at, data)).toBe(total);
              if (total > 0 && at + total > model.length) {
                const grown = new Uint8Array(at + total);
                grown.set(model);
                model = grown;
              }
              if (total > 0) model.set(pattern(total, seed), at);
            } else if (op === 'read') {
              data.fill(0xee);
              const there = model.subarray(Math.min(at, model.length), Math.min(at + total, model.length));
              expect(await read(engine, fd, at, data)).toBe(there.length);
              const expected = new Uint8Array(total).fill(0xee);
              expected.set(there);
              expect(same(bytesOf(data), expected)).toBe(true);
            } else if (op === 'sync') {
              expect(await new Promise((resolve) => engine.sync(fd, resolve))).toBe(0);
            } else {
              const length = total + 1;
              const result = await new Promise<number>((resolve) => {
                engine.allocate(fd, op, at, length, resolve);
              });
              if (result === 0) model.fill(0, at, at + length);
              else expect(result).toBe(-constants.errno.EOPNOTSUPP);
            }
          }
          expect(same(readFileSync(path), model)).toBe(true);
        } finally {
          closeSync(fd);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('says why it could not, and 0 beyond the end', async () => {
    const memory = makeMemory();
    const engine = makeEngine(memory, kind);
    const guest = new GuestVector(memory, [0, 16 * MiB], [512, 512]);
    const full = openSync('/dev/full', 'r+');
    onTestFinished(() => closeSync(full));
    for (const data of [guest, new HostVector(new Uint8Array(1024))]) {
      expect(await read(engine, 9999, 0, data)).toBe(-EBADF);
      expect(await write(engine, 9999, 0, data)).toBe(-EBADF);
      expect(await write(engine, full, 0, data)).toBe(-ENOSPC);
      const { fd } = openFile(pattern(1500));
      expect(await read(engine, fd, 1500, data)).toBe(0);
      expect(await read(engine, fd, 1_000_000, data)).toBe(0);
      expect(await read(engine, fd, 1000, data)).toBe(500);
      expect(bytesOf(data).subarray(0, 500)).toEqual(pattern(1500).subarray(1000));
    }
    expect(await new Promise((resolve) => engine.sync(9999, resolve))).toBe(-EBADF);
    expect(await new Promise((resolve) => engine.allocate(9999, 'punch-hole', 0, 1, resolve))).toBe(-EBADF);
  });

  it('calls back once for each of 10,000 requests, after the call has returned', async () => {
    const memory = makeMemory();
    const engine = makeEngine(memory, kind);
    const content = pattern(64 * 4096);
    const { fd } = openFile(content);
    const told = new Uint8Array(10_000);
    let asking = true;
    for (let index = 0; index < told.length; index++) {
      const page = (index * 7) % 64;
      const vector = new GuestVector(memory, [page * 4096], [4096]);
      engine.read(fd, page * 4096, vector, (result) => {
        if (!asking && result === 4096) told[index]!++;
      });
      if (index % 1000 === 0) engine.flush();
    }
    expect(engine.inFlight).toBe(10_000);
    asking = false;
    await engine.drained();
    expect(told.every((times) => times === 1)).toBe(true);
    expect(engine.inFlight).toBe(0);
    expect(same(memory.read(0, content.length), content)).toBe(true);
  });

  it('ends what was in flight before it is closed, and cancels what comes later', async () => {
    const memory = makeMemory();
    const engine = makeEngine(memory, kind);
    const { fd } = openFile(pattern(8192));
    const order: string[] = [];
    engine.read(fd, 0, new GuestVector(memory, [0], [8192]), (result) => order.push(`read ${result}`));
    const closed = engine.close().then(() => order.push('closed'));
    expect(await read(engine, fd, 0, new GuestVector(memory, [0], [1]))).toBe(-ECANCELED);
    await closed;
    expect(order).toEqual(['read 8192', 'closed']);
    await engine.close();
  });
});

describe.each(kinds)('NativeIoEngine, %s', (kind) => {
  it.each([1500, 10_000])('splits %i pieces, and counts them as one', async (count) => {
    const memory = makeMemory(32 * MiB);
    const engine = makeEngine(memory, kind);
    const { fd, path } = openFile();
    const vector = new GuestVector(
      memory,
      Array.from({ length: count }, (_, at) => at * 1024 + (at % 3)),
      Array.from({ length: count }, (_, at) => 1 + (at % 1000)),
    );
    const bytes = pattern(vector.lengthBytes);
    vector.copyFrom(bytes);
    const other = new GuestVector(memory, [16 * MiB], [4096]);
    expect(await Promise.all([write(engine, fd, 5, vector), read(engine, fd, 1e9, other)])).toEqual([bytes.length, 0]);
    expect(same(readFileSync(path).subarray(5), bytes)).toBe(true);
    vector.fill(0);
    expect(await Promise.all([read(engine, fd, 5, vector), read(engine, fd, 5, other)])).toEqual([bytes.length, 4096]);
    expect(same(bytesOf(vector), bytes)).toBe(true);
    expect(await read(engine, fd, 6, vector)).toBe(bytes.length - 1);
  });

  it('marks pages dirty before it calls back, of reads alone', async () => {
    const memory = makeMemory();
    const engine = makeEngine(memory, kind);
    const { fd } = openFile(pattern(10_000));
    const vector = new GuestVector(memory, [4095, 16 * MiB + 8192], [2, 9000]);
    await write(engine, fd, 0, vector);
    expect(memory.takeDirty().map(({ pages }) => pages)).toEqual([[], []]);
    const pages = await new Promise((resolve) => {
      engine.read(fd, 0, vector, () => resolve(memory.takeDirty().map((row) => row.pages)));
    });
    expect(pages).toEqual([
      [0, 1],
      [2, 3, 4],
    ]);
  });

  it('copies vectors of other memories', async () => {
    const engine = makeEngine(makeMemory(), kind);
    const other = new FakeGuestMemory(65536);
    const { fd, path } = openFile('0123456789');
    const vector = new GuestVector(other, [100, 50], [4, 20]);
    expect(await read(engine, fd, 1, vector)).toBe(9);
    expect(Buffer.from(bytesOf(vector)).toString('latin1', 0, 10)).toBe('123456789\0');
    expect(await write(engine, fd, 0, vector.slice(2, 3))).toBe(3);
    expect(readFileSync(path, 'utf8')).toBe('3453456789');
  });

  it('refuses numbers that are none, and pieces outside the memory', async () => {
    const memory = makeMemory();
    const engine = makeEngine(memory, kind);
    const vector = new GuestVector(memory, [0], [1]);
    const done = () => expect.unreachable();
    for (const [fd, offset] of [
      [-1, 0],
      [0.5, 0],
      [2 ** 31, 0],
      [0, -1],
      [0, NaN],
      [0, 2 ** 53],
    ] as const) {
      expect(() => engine.read(fd, offset, vector, done)).toThrow(RangeError);
    }
    expect(() => engine.allocate(0, 'punch-hole', 0, -1, done)).toThrow(RangeError);
    expect(engine.inFlight).toBe(0);
    const { fd } = openFile(pattern(4096));
    for (const [gpa, length] of [
      [MiB / 2, 1],
      [MiB / 2 - 1, 2],
      [16 * MiB + MiB / 2 - 10, 11],
      [-1, 1],
    ] as const) {
      const good = read(engine, fd, 0, new GuestVector(memory, [0], [4096]));
      expect(await read(engine, fd, 0, new GuestVector(memory, [0, gpa], [1, length]))).toBe(-EFAULT);
      expect(await good).toBe(4096);
    }
  });

  it('waits with close() for a slow file, for more requests than may be under way', async () => {
    const memory = makeMemory();
    const engine = makeEngine(memory, kind);
    const fifo = openFifo();
    const results: number[] = [];
    for (let index = 0; index < 300; index++) {
      engine.read(fifo, 0, new GuestVector(memory, [index * 16], [1]), (result) => results.push(result));
    }
    let closed = false;
    const closing = engine.close().then(() => (closed = true));
    for (let round = 0; round < 20; round++) await turn();
    expect([closed, engine.inFlight, results]).toEqual([false, 300, []]);
    writeSync(fifo, new Uint8Array(299).fill(1));
    while (results.length < 299) await turn();
    expect([closed, engine.inFlight]).toEqual([false, 1]);
    writeSync(fifo, new Uint8Array(1).fill(1));
    await closing;
    expect(results).toEqual(new Array(300).fill(1));
    for (let index = 0; index < 300; index++) expect(memory.read(index * 16, 2)).toEqual(Uint8Array.of(1, 0));
  });

  it('lives on when the memory is closed before its requests are done', async () => {
    const memory = makeMemory();
    const engine = makeEngine(memory, kind);
    const fifo = openFifo();
    const slow = read(engine, fifo, 0, new GuestVector(memory, [0], [4096]));
    engine.flush();
    const late = read(engine, fifo, 0, new GuestVector(memory, [8192], [4096]));
    memory.close();
    expect(await late).toBe(-EFAULT);
    writeSync(fifo, pattern(4096));
    expect(await slow).toBe(4096);
  });

  it('asks again when a file says EAGAIN', async () => {
    const memory = makeMemory();
    const engine = makeEngine(memory, kind);
    const path = join(folder, `fifo-${++files}`);
    execFileSync('mkfifo', [path]);
    const fd = openSync(path, flags.O_RDWR | flags.O_NONBLOCK);
    onTestFinished(() => closeSync(fd));
    const result = read(engine, fd, 0, new GuestVector(memory, [0], [3]));
    for (let round = 0; round < 10; round++) await turn();
    writeSync(fd, 'abc');
    expect(await result).toBe(3);
  });

  it('tells the others when a callback throws', async () => {
    const memory = makeMemory();
    const engine = makeEngine(memory, kind);
    const { fd } = openFile(pattern(4096));
    const others = process.listeners('uncaughtException');
    for (const listener of others) process.off('uncaughtException', listener);
    const thrown = new Promise((resolve) => process.once('uncaughtException', resolve));
    onTestFinished(() => others.forEach((listener) => process.on('uncaughtException', listener)));
    const results: number[] = [];
    for (let index = 0; index < 3; index++) {
      engine.read(fd, 0, new GuestVector(memory, [0], [10 + index]), (result) => {
        results.push(result);
        if (index === 1) throw new Error('a bug');
      });
    }
    expect(await thrown).toMatchObject({ message: 'a bug' });
    await engine.drained();
    expect(results.sort()).toEqual([10, 11, 12]);
  });

  it('lets timers have their turn while a guest reads on and on', async () => {
    const memory = makeMemory();
    const engine = makeEngine(memory, kind);
    const { fd } = openFile(pattern(4096));
    let over = false;
    const again = () => {
      if (!over) engine.read(fd, 0, new GuestVector(memory, [0], [4096]), again);
    };
    again();
    await new Promise((resolve) => setTimeout(resolve, 1));
    over = true;
    await engine.drained();
  });
});

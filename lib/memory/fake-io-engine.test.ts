import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { FakeGuestMemory } from './fake.js';
import { FakeIoEngine } from './fake-io-engine.js';
import { GuestVector, HostVector } from './io-vector.js';

const { EIO, ENOSPC, EOPNOTSUPP, EBADF, ECANCELED } = constants.errno;

function rig(text: string) {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-fake-io-'));
  const path = join(folder, 'file');
  writeFileSync(path, text);
  const fd = openSync(path, 'r+');
  onTestFinished(() => {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });
  return { engine: new FakeIoEngine(), fd, content: () => readFileSync(path, 'utf8') };
}

const text = (value: string) => new HostVector(Buffer.from(value));

describe('FakeIoEngine', () => {
  it('moves bytes between a file and pieces of guest memory, and marks pages', async () => {
    const { engine, fd, content } = rig('abcdefgh');
    const memory = new FakeGuestMemory(65536);
    const results: number[] = [];
    engine.read(fd, 2, new GuestVector(memory, [8190, 100], [4, 10]), (result) => results.push(result));
    expect(results).toEqual([]);
    await engine.drained();
    expect(results).toEqual([6]);
    expect(Buffer.from(memory.read(8190, 4)).toString()).toBe('cdef');
    expect(Buffer.from(memory.read(100, 3)).toString()).toBe('gh\0');
    expect([...memory.dirtyPages].sort()).toEqual([0, 1, 2]);
    engine.write(fd, 7, new GuestVector(memory, [8190], [4]), (result) => results.push(result));
    engine.sync(fd, (result) => results.push(result));
    await engine.drained();
    expect(results).toEqual([6, 4, 0]);
    expect(content()).toBe('abcdefgcdef');
  });

  it('holds requests back, and lets them go one by one in the order that a test picks', () => {
    const { engine, fd, content } = rig('........');
    engine.hold();
    engine.pick = (count) => count - 1;
    const done: string[] = [];
    for (const name of ['a', 'b', 'c']) engine.write(fd, 0, text(name.repeat(4)), () => done.push(name));
    expect([engine.inFlight, content()]).toEqual([3, '........']);
    engine.release(1);
    expect([done, content()]).toEqual([['c'], 'cccc....']);
    engine.release();
    expect([done, content(), engine.inFlight]).toEqual([['c', 'b', 'a'], 'aaaa....', 0]);
  });

  it('fails and falls short as it is told, and notes what was asked for', async () => {
    const { engine, fd, content } = rig('12345678');
    const results: number[] = [];
    const note = (result: number) => results.push(result);
    engine.fault = ({ op }) => (op === 'sync' ? { errno: 'EIO' } : op === 'write' ? { atMostBytes: 2 } : undefined);
    engine.sync(fd, note);
    engine.write(fd, 0, text('abcd'), note);
    engine.allocate(fd, 'zero-range', 4, 100, note);
    engine.read(9999, 0, text('a'), note);
    await engine.drained();
    engine.canAllocate = false;
    engine.fault = () => ({ errno: 'ENOSPC' });
    engine.write(fd, 0, text('x'), note);
    await engine.drained();
    engine.fault = () => undefined;
    engine.allocate(fd, 'punch-hole', 0, 1, note);
    await engine.drained();
    expect(results).toEqual([-EIO, 2, 0, -EBADF, -ENOSPC, -EOPNOTSUPP]);
    expect(content()).toBe('ab34\0\0\0\0');
    expect(engine.requests[1]).toEqual({ op: 'write', fd, offset: 0, lengthBytes: 4 });
  });

  it('carries out what was in flight when it was closed, and nothing after', async () => {
    const { engine, fd, content } = rig('..');
    const results: number[] = [];
    engine.write(fd, 0, text('a'), (result) => results.push(result));
    const closed = engine.close();
    engine.write(fd, 1, text('b'), (result) => results.push(result));
    await closed;
    expect([results, content()]).toEqual([[1, -ECANCELED], 'a.']);
  });
});

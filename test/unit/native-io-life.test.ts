/**
 * The raw I/O queue: the layout of what it shares, what it refuses, and the end of processes, Workers and objects with
 * requests under way. Needs the built addon and no KVM. Each scene is a child process (test/lib/io-child.mjs).
 */
import { execFile } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { loadBinding } from '../../lib/kvm/binding.js';
import { IoArea, IoCompletion, IoOp, IoPiece, IoRecord } from '../../lib/kvm/native.js';
import { lockFile } from '../../lib/memory/index.js';

const kinds = ['io_uring', 'threads'] as const;

function play(scene: string, kind: string, descriptors = 1024): Promise<Record<string, unknown>> {
  const script = join(import.meta.dirname, '../lib/io-child.mjs');
  const command = `ulimit -n ${descriptors}; exec "$0" --expose-gc "$1" "$2" "$3"`;
  return new Promise((resolve, reject) => {
    execFile('sh', ['-c', command, process.execPath, script, scene, kind], (error, stdout, stderr) => {
      if (error) {
        reject(new Error(`${scene} ended with ${error.signal ?? `status ${error.code}`}: ${stderr}`, { cause: error }));
        return;
      }
      expect(stderr).toBe('');
      resolve(stdout === '' ? {} : (JSON.parse(stdout) as Record<string, unknown>));
    });
  });
}

it('shares the layout that native code was compiled with', () => {
  const { structSizes } = loadBinding().addon;
  expect(structSizes['IoArea']).toBe(IoArea.SIZE);
  expect(structSizes['IoRecord']).toBe(IoRecord.STRIDE);
  expect(structSizes['IoPiece']).toBe(IoPiece.STRIDE);
  expect(structSizes['IoCompletion']).toBe(IoCompletion.STRIDE);
  expect(IoArea.PIECES_AT).toBe(IoArea.RECORDS_AT + IoArea.ENTRIES * IoRecord.STRIDE);
  expect(IoArea.COMPLETIONS_AT).toBe(IoArea.PIECES_AT + IoArea.PIECES * IoPiece.STRIDE);
});

describe.each(kinds)('a queue of kind %s', (kind) => {
  it('refuses what leads outside of the memory or the area, and hands nothing over then', () => {
    const { addon } = loadBinding();
    const memory = new addon.Memory({ sizeBytes: 8192, backing: 'anonymous', hugePages: false });
    const queue = new addon.IoQueue(memory, kind);
    const shared = queue.area();
    const area = new DataView(shared);
    const zero = openSync('/dev/zero', 'r');
    onTestFinished(() => {
      queue.close();
      memory.close();
      closeSync(zero);
    });
    const bytes = new Uint8Array(memory.view(0, 8192)).fill(1);
    const put = (index: number, fields: Partial<Record<keyof typeof IoRecord, number>>, offset = 0n, length = 1n) => {
      const all = { OP: IoOp.READ, FD: zero, FIRST_PIECE: index, PIECE_COUNT: 1, TAG: index, ...fields };
      for (const [name, value] of Object.entries(all)) {
        area.setUint32(index * IoRecord.STRIDE + IoRecord[name as keyof typeof IoRecord], value, true);
      }
      area.setBigUint64(IoArea.PIECES_AT + index * IoPiece.STRIDE, offset, true);
      area.setBigUint64(IoArea.PIECES_AT + index * IoPiece.STRIDE + 8, length, true);
    };
    put(0, {});
    const bad: [Partial<Record<keyof typeof IoRecord, number>>, bigint?, bigint?][] = [
      [{}, 8192n, 1n],
      [{}, 8191n, 2n],
      [{}, 1n, 2n ** 64n - 1n],
      [{}, 2n ** 64n - 1n, 2n],
      [{ OP: 5 }],
      [{ TAG: 0 }],
      [{ TAG: IoArea.ENTRIES }],
      [{ FIRST_PIECE: IoArea.PIECES }],
      [{ FIRST_PIECE: IoArea.PIECES - 1, PIECE_COUNT: 2 }],
      [{ FIRST_PIECE: 2 ** 32 - 1 }],
      [{ PIECE_COUNT: IoArea.RECORD_PIECES + 1 }],
    ];
    for (const [fields, offset, length] of bad) {
      put(1, fields, offset, length);
      expect(() => queue.submit(2)).toThrow(RangeError);
    }
    expect(() => queue.submit(IoArea.ENTRIES + 1)).toThrow(RangeError);
    expect([queue.reap(), bytes[0]]).toEqual([0, 1]);
    queue.close();
    expect(() => queue.submit(0)).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
    expect(() => queue.reap()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
    expect(shared.byteLength).toBe(0);
  });

  it.each(['leave', 'exit', 'throw'])('survives a process that ends with requests under way: %s', async (scene) => {
    await expect(play(scene, kind)).resolves.toEqual({});
  });

  it('cancels what is under way when it is closed or collected, and leaves nothing', async () => {
    const none = { ioQueues: 0, mappings: 0, eventFds: 0 };
    const { during, after, held } = await play('close', kind);
    expect(during).toMatchObject({ ioQueues: 1 });
    expect(after).toMatchObject(none);
    expect(held).toMatchObject({ rings: 0 });
    // The event thread lives on; under load it may not have begun.
    const threads = kind === 'threads' ? [0] : [0, 1];
    expect(threads).toContain((after as { threads: number }).threads);
    expect(threads).toContain((held as { threads: number }).threads);
    expect(await play('collect', kind)).toMatchObject(none);
  });

  it('ends with its Worker in every way', async () => {
    const { before, after } = await play('worker', kind);
    expect(after).toEqual(before);
    expect(after).toMatchObject({ threads: 0, rings: 0 });
  });
});

describe('a queue without a kind', () => {
  it('takes threads and says why where no ring can be had', async () => {
    const refusal = expect.stringMatching(/^io_uring_setup: EMFILE/);
    expect(await play('emfile', 'auto', 64)).toEqual({ taken: 'threads', refusal, error: refusal });
  });
});

describe('lockFile', () => {
  function opened(path: string, flags = 'w+'): number {
    const fd = openSync(path, flags);
    onTestFinished(() => closeSync(fd));
    return fd;
  }

  it('is held by the open file, shared or alone, and can be changed', () => {
    const folder = mkdtempSync(join(tmpdir(), 'vivarium-lock-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'disk');
    const [first, second] = [openSync(path, 'w+'), opened(path)];
    expect(lockFile(first, 'shared')).toBe(true);
    expect(lockFile(second, 'shared')).toBe(true);
    expect(lockFile(first, 'exclusive')).toBe(false);
    closeSync(first);
    expect(lockFile(second, 'exclusive')).toBe(true);
    expect(lockFile(opened(path, 'r'), 'shared')).toBe(false);
    expect(lockFile(second, 'shared')).toBe(true);
    const third = opened(path, 'r');
    expect(lockFile(third, 'shared')).toBe(true);
    expect(() => lockFile(third, 'exclusive')).toThrow(expect.objectContaining({ syscall: 'fcntl', errno: 'EBADF' }));
    expect(() => lockFile(9999, 'shared')).toThrow(expect.objectContaining({ errno: 'EBADF' }));
  });
});

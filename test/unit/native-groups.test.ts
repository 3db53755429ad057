/**
 * The raw pools of a snapshot's groups: the layout of rows, the checksum, what they refuse, and the end of a Worker with
 * groups under way. Needs the built addon and no KVM.
 */
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { once } from 'node:events';
import { expect, it, onTestFinished } from 'vitest';
import { Random } from '../../lib/base/fuzzing.js';
import { loadBinding } from '../../lib/kvm/binding.js';
import { GROUP_BYTES, GroupCodec, GroupRow } from '../../lib/kvm/native-snapshot.js';

const { addon } = loadBinding();

function rig(groups = 4): { memory: InstanceType<typeof addon.Memory>; fd: number; folder: string } {
  const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-groups-'));
  const fd = openSync(path.join(folder, 'memory'), 'wx+');
  const memory = new addon.Memory({ sizeBytes: groups * GROUP_BYTES, backing: 'anonymous', hugePages: false });
  onTestFinished(() => {
    memory.close();
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });
  return { memory, fd, folder };
}

it('rows have the layout that native code was compiled with', () => {
  expect(addon.structSizes['GroupRow']).toBe(GroupRow.STRIDE);
});

it('CRC-32C is the one of RFC 3720, with and without the instruction', () => {
  const text = (value: string): Uint8Array => new Uint8Array(Buffer.from(value));
  expect(addon.crc32c(text('123456789'))).toBe(0xe3069283);
  expect(addon.crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
  for (const byTable of [true, false]) expect(addon.crc32c(text('123456789'), byTable)).toBe(0xe3069283);
  const random = new Random(1);
  const bytes = Uint8Array.from({ length: 70_000 }, () => random.word());
  for (let round = 0; round < 300; round++) {
    const from = random.below(100);
    const part = bytes.subarray(from, from + random.below(bytes.length - from));
    const byInstruction = addon.crc32c(part, false);
    expect([addon.crc32c(part), addon.crc32c(part, true)]).toEqual([byInstruction, byInstruction]);
  }
});

it('refuse groups, rows and arguments that are none, and start nothing', () => {
  const { memory, fd } = rig();
  const options = { fd, zstdLevel: 0, threads: 1, bufferGroups: 0 };
  expect(() => new addon.GroupWriter({} as never, options)).toThrow(TypeError);
  expect(() => new addon.GroupWriter(memory, { ...options, fd: -1 })).toThrow(RangeError);
  expect(() => new addon.GroupWriter(memory, { ...options, fd: 99_999 })).toThrow(/EBADF/);
  expect(() => new addon.GroupWriter(memory, { ...options, threads: 1000 })).toThrow(RangeError);
  const writer = new addon.GroupWriter(memory, options);
  expect(() => writer.write(Uint32Array.of(4))).toThrow(RangeError);
  expect(() => writer.offer(0, new Uint8Array(10))).toThrow(RangeError);
  expect(writer.offer(0, new Uint8Array(GROUP_BYTES))).toBe(false);
  writer.close();
  expect(() => writer.progress()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));

  const row = (codec: number, storedBytes: number, file = 0, offset = 0n): Uint8Array => {
    const view = new DataView(new ArrayBuffer(GroupRow.STRIDE));
    view.setBigUint64(GroupRow.OFFSET, offset, true);
    view.setUint32(GroupRow.STORED_BYTES, storedBytes, true);
    view.setUint16(GroupRow.FILE, file, true);
    view.setUint8(GroupRow.CODEC, codec);
    return new Uint8Array(view.buffer);
  };
  for (const wrong of [
    row(GroupCodec.SAME, 0),
    row(GroupCodec.PARENT, 0),
    row(GroupCodec.NONE, 0),
    row(GroupCodec.RAW, 100),
    row(GroupCodec.ZSTD, 0),
    row(GroupCodec.ZSTD, GROUP_BYTES + 1),
    row(GroupCodec.RAW, GROUP_BYTES, 1),
    row(GroupCodec.RAW, GROUP_BYTES, 0, 2n ** 63n),
    new Uint8Array(GroupRow.STRIDE - 1),
  ]) {
    expect(() => new addon.GroupReader(Uint32Array.of(fd), wrong, 1)).toThrow(RangeError);
  }
  const reader = new addon.GroupReader(Uint32Array.of(fd), row(GroupCodec.RAW, GROUP_BYTES), 1);
  expect(() => reader.load(Uint32Array.of(0), memory)).toThrow(RangeError);
  expect(() => reader.load(Uint32Array.of(1))).toThrow(RangeError);
  expect(reader.read(0, new Uint8Array(GROUP_BYTES))).toMatchObject({ kind: 'short-read', group: 0, fileOffset: 0 });
  reader.close();
});

it('end with a Worker that leaves them open', { timeout: 60_000 }, async () => {
  const { folder } = rig();
  const script = `
    import { openSync } from 'node:fs';
    import { createRequire } from 'node:module';
    const addon = createRequire(${JSON.stringify(import.meta.url)})('bindings')({ bindings: 'vivarium' });
    addon.initialize(() => new Error('failed'), () => {});
    const memory = new addon.Memory({ sizeBytes: 512 * 65536, backing: 'anonymous', hugePages: false });
    new Uint8Array(memory.view(0, memory.sizeBytes)).fill(7).forEach((_, at, all) => at % 4096 === 0 && (all[at] = at / 65536));
    const fd = openSync(${JSON.stringify(path.join(folder, 'other'))}, 'wx+');
    const writer = new addon.GroupWriter(memory, { fd, zstdLevel: 0, threads: 2, bufferGroups: 4 });
    writer.write(Uint32Array.from({ length: 512 }, (_, group) => group));
    process.exit(0);
  `;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(script)}`));
  const [status] = (await once(worker, 'exit')) as [number];
  expect(status).toBe(0);
});

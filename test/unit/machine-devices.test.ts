/** What a machine's devices do about a request that the kernel has and does not end: a read of an empty FIFO. */
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { gpa } from '../../lib/base/address.js';
import { ManualClock } from '../../lib/base/clock.js';
import { MachineDevices } from '../../lib/machine/machine-devices.js';
import { AddressSpace, GuestVector } from '../../lib/memory/index.js';
import { CLOSE_MS, memoryDisk, type BlockSource } from '../../lib/vsp/index.js';

const CLOSE_NS = BigInt(CLOSE_MS) * 1_000_000n;
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A disk whose backend has left a read into guest memory in the kernel, which ends when a byte is written to the FIFO. */
async function openStuck(look: (memory: AddressSpace) => unknown) {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-stuck-'));
  const path = join(folder, 'fifo');
  execFileSync('mkfifo', [path]);
  const fd = openSync(path, constants.O_RDWR);
  onTestFinished(() => {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });
  const memory = new AddressSpace({ ranges: [{ gpa: gpa(0), sizeBytes: 65536 }] });
  /** What `look` saw when the read ended. */
  const landed: unknown[] = [];
  const disk = memoryDisk('1MiB');
  const backend: BlockSource = {
    class: 'block',
    describe: () => disk.describe(),
    open(context) {
      context.engine.read(fd, 0, new GuestVector(memory, [0], [1]), (result) => landed.push(result, look(memory)));
      context.engine.flush();
      return disk.open(context);
    },
  };
  const clock = new ManualClock();
  const logged: string[] = [];
  const devices = await MachineDevices.open({
    disks: [{ id: 'stuck', backend, readOnly: false, copyOnWriteBytes: undefined }],
    nics: [],
    name: 'machine',
    consolePorts: [],
    entropy: undefined,
    memory,
    clock,
    logger: { log: (_level, message) => logged.push(message) },
  });
  return { devices, memory, clock, logged, landed, end: () => writeSync(fd, Buffer.of(0x5a)) };
}

it('are closed without it, and keep the memory that it moves data to until it has ended', async () => {
  const { devices, memory, clock, landed, end } = await openStuck((space) => space.read(0, 1)[0]);
  let ended = false;
  const closed = devices.close().finally(() => (ended = true));
  closed.catch(() => undefined);
  for (; !ended; await turn()) clock.advance(CLOSE_NS);
  await expect(closed).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
  await devices.release(memory);
  expect(memory.read(0, 1)[0]).toBe(0);
  end();
  while (landed.length === 0) await turn();
  expect(landed).toEqual([1, 0x5a]);
  for (let isOpen = true; isOpen; await turn()) {
    try {
      memory.read(0, 1);
    } catch {
      isOpen = false;
    }
  }
});

it('go on with other memory after a restart, and leave it the mapping', async () => {
  const { devices, memory, clock, logged, landed, end } = await openStuck(() => undefined);
  let ended = false;
  const left = devices.useMemory(undefined).finally(() => (ended = true));
  for (; !ended; await turn()) clock.advance(CLOSE_NS);
  await left;
  expect(logged).toEqual(['a restart leaves file requests behind']);
  memory.close();
  const next = new AddressSpace({ ranges: [{ gpa: gpa(0), sizeBytes: 65536 }] });
  await devices.useMemory(next);
  end();
  while (landed.length === 0) await turn();
  expect(landed).toEqual([1, undefined]);
  await devices.close();
  await devices.release(next);
  expect(() => next.read(0, 1)).toThrow(/closed/);
});

/**
 * Machines out of stored snapshots (test/corpus/snapshots): the guest goes on where it was, tick by tick; and each part of the state,
 * however deep, in a version that is not known is refused by its name, with nothing running.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Machine, RestoreOptions } from '../../lib/machine/index.js';
import { callbackConsole, memoryDisk } from '../../lib/vsp/index.js';
import { FakeNetwork } from '../../lib/vsp/net/testing.js';
import { untilCalmly } from '../lib/machine.js';
import { copyWithVersion, NEWEST, partsOf, SAMPLES } from '../lib/snapshot-samples.js';
import { MEMORIES, restore, snapshotFolder } from '../lib/snapshots.js';

/** The samples were made on a CPU of this vendor; one of another is refused them. */
const isSameVendor = /^vendor_id\s*: AuthenticAMD$/m.test(readFileSync('/proc/cpuinfo', 'utf8'));

/** Of test/guests/pit-halts.S. */
const TICKS = 0x600;
const ACKED = 0x604;
const u32 = (machine: Machine, gpa: number): number =>
  new DataView(machine.memory.read(gpa, 4).buffer).getUint32(0, true);

/** On whatever this CPU has of what the sample's had. */
const options = (): RestoreOptions => ({
  mask: true,
  clock: 'freeze',
  overrides: {
    disks: { kept: memoryDisk('1MiB') },
    console: { port: callbackConsole(() => undefined) },
    nics: {
      net: { class: 'network', describe: () => ({ kind: 'fake' }), open: () => Promise.resolve(new FakeNetwork()) },
    },
  },
});

const refused = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

describe.each(SAMPLES.map((dir) => [path.basename(dir), dir]))('the sample of version %s', (_version, dir) => {
  it.each(MEMORIES.flatMap((memory) => [['base', memory] as const, ['child', memory] as const]))(
    'goes on where it was: %s, %s',
    async (name, memory) => {
      const restoring = restore(path.join(dir, name), { ...options(), memory, start: false });
      if (!isSameVendor) return expect(restoring).rejects.toEqual(refused('ERR_SNAPSHOT_HOST', /this host's by/));
      const machine = await restoring;
      expect([machine.name, machine.state, machine.memory.sizeBytes]).toEqual(['sample', 'paused', 2 ** 20]);
      const [ticks, acked] = [u32(machine, TICKS), u32(machine, ACKED)];
      expect(acked).toBeGreaterThanOrEqual(name === 'base' ? 99 : 199);
      const before = machine.pit.status();
      expect(before.forgiven).toBe(0);
      expect(before.delivered).toBeGreaterThanOrEqual(acked);
      expect(before.delivered).toBeLessThanOrEqual(ticks);
      for (const id of ['disk', 'kept', 'net', 'port']) expect(machine.device(id).contract.backend.kind).not.toBe('');
      await machine.resume();
      await untilCalmly(() => u32(machine, ACKED) > acked + 25);
      await machine.pause({ clock: 'freeze' });
      const after = machine.pit.status();
      expect(after.delivered).toBeGreaterThanOrEqual(u32(machine, ACKED));
      expect(after.delivered).toBeLessThanOrEqual(u32(machine, TICKS));
      expect(Math.round(after.programmedHz)).toBe(250);
      expect(after.expected).toBe(after.delivered + after.forgiven + after.owed);
      // And it can be saved by what is here now.
      const again = path.join(snapshotFolder(), 'again');
      await machine.snapshot(again, { mode: 'paused' });
    },
  );
});

const base = path.join(NEWEST, 'base');

/** Of each kind the first one. */
const parts = [...new Map([...partsOf(base)].reverse().map((part) => [part.type, part])).values()].reverse();

it.each(parts.map((part) => [part.type, part] as const))(
  'the state of a %s in a newer version is refused by name',
  async (type, part) => {
    const copy = path.join(snapshotFolder(), 'copy');
    copyWithVersion(base, copy, part.where, part.version + 1);
    await expect(restore(copy, options())).rejects.toEqual(
      refused(
        'ERR_SNAPSHOT_VERSION',
        new RegExp(`the state of a ${type} in version ${part.version + 1}; .* up to ${part.version}$`),
      ),
    );
  },
);

it('a state in an older version that nothing upgrades is refused by name', async () => {
  const old = parts.find(({ type, version }) => type === 'vcpu' && version === 1)!;
  const copy = path.join(snapshotFolder(), 'copy');
  copyWithVersion(base, copy, old.where, 0);
  await expect(restore(copy, options())).rejects.toEqual(refused('ERR_SNAPSHOT_VERSION', /a vcpu in version 0; .* 1$/));
  // No part is ever of version 0, and the outermost list says so.
  const first = path.join(snapshotFolder(), 'copy');
  copyWithVersion(base, first, '0:machine', 0);
  await expect(restore(first, options())).rejects.toEqual(refused('ERR_SNAPSHOT', /copy\/state: it is no saved state/));
});

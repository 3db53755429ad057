import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  checkMachineName,
  claimName,
  clearDead,
  endedRecordOf,
  listEnded,
  listRecords,
  recordOf,
} from './machine-folders.js';
import { ownPlace } from './testing.js';

const NATIVE = { host: 'native' } as const;
let place: ReturnType<typeof ownPlace>;
beforeEach(() => (place = ownPlace()));
afterEach(() => place.done());

/** The folder that a process which has been killed leaves behind. */
function leaveDead(name: string): void {
  const folder = join(place.folder, name);
  mkdirSync(folder);
  writeFileSync(join(folder, 'lock'), '');
  writeFileSync(join(folder, 'sock'), '');
  const record = { name, id: 'abc', pid: 2 ** 22 + 1, host: 'native', since: '2026-01-01T00:00:00.000Z' };
  const holder = { pid: 2 ** 22 + 1, startTicks: '1', bootId: 'another', pidNamespace: 'another' };
  writeFileSync(join(folder, 'machine.json'), JSON.stringify({ ...record, holder }));
}

describe('a name', () => {
  it.each(['', 'a/b', '../up', '.hidden', '-x', 'a b', 'ä', 'x'.repeat(64), 'nul\0', undefined, 7])(
    'is refused: %j',
    (name) => {
      expect(() => checkMachineName(name)).toThrow(TypeError);
    },
  );

  it('is claimed, listed with who has it, and given up without a trace', async () => {
    const claim = await claimName('box', { host: 'embedded', wallMs: 0 }, place);
    const { id } = claim.record;
    expect(id).toMatch(/^[0-9a-f]{12}$/);
    const record = { name: 'box', id, pid: process.pid, host: 'embedded', since: '1970-01-01T00:00:00.000Z' };
    expect(listRecords(place)).toEqual([record]);
    expect(recordOf('box', place)).toEqual(record);
    expect(statSync(claim.folder).mode & 0o777).toBe(0o700);
    claim.release();
    claim.release();
    expect(readdirSync(place.folder)).toEqual([]);
  });

  it('is refused while somebody has it, with whom, and free afterwards', async () => {
    const claim = await claimName('box', NATIVE, place);
    await expect(claimName('box', NATIVE, place)).rejects.toMatchObject({
      code: 'ERR_NAME_TAKEN',
      message: `a machine named box is there already, held by process ${process.pid}`,
    });
    claim.release();
    (await claimName('box', NATIVE, place)).release();
  });

  it("goes to one of many that want it at once, and the loser's try leaves the winner's things alone", async () => {
    const tries = await Promise.allSettled(Array.from({ length: 20 }, () => claimName('box', NATIVE, place)));
    const won = tries.filter((result) => result.status === 'fulfilled');
    expect(won).toHaveLength(1);
    expect(recordOf('box', place)).toEqual(won[0]!.value.record);
    won[0]!.value.release();
  });

  it('of a process that was killed is taken over, with nothing left of its things', async () => {
    leaveDead('box');
    const claim = await claimName('box', NATIVE, place);
    expect(existsSync(claim.socketPath)).toBe(false);
    expect(recordOf('box', place)?.id).toBe(claim.record.id);
    claim.release();
  });

  it('is too long for the address of a socket in a deep folder', async () => {
    const deep = { ...place, folder: join(place.folder, 'x'.repeat(80)) };
    await expect(claimName('a'.repeat(40), NATIVE, deep)).rejects.toMatchObject({ code: 'ERR_SETUP' });
  });

  it('is no way out of the folder by a link in the place of its lock', async () => {
    mkdirSync(join(place.folder, 'box'));
    symlinkSync('/etc/hostname', join(place.folder, 'box', 'lock'));
    await expect(claimName('box', NATIVE, place)).rejects.toMatchObject({ code: 'ERR_SYSTEM', errno: 'ELOOP' });
  });
});

describe('a lock', () => {
  it('goes with its process, however that ends', async () => {
    const script = `
      import { openSync } from 'node:fs';
      const { createRequire } = await import('node:module');
      const addon = createRequire(process.argv[1])(process.argv[2]);
      console.log(addon.lockFile(openSync(process.argv[1], 'r+'), true));
      setInterval(() => {}, 1000);`;
    const folder = join(place.folder, 'box');
    leaveDead('box');
    const addon = join(process.cwd(), 'build/Release/vivarium.node');
    const child = spawn(process.execPath, ['--input-type=module', '-e', script, join(folder, 'lock'), addon]);
    await new Promise((resolve) => child.stdout.once('data', resolve));
    expect(clearDead('box', place)).toBe(false);
    expect(existsSync(join(folder, 'machine.json'))).toBe(true);
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('close', resolve));
    expect(clearDead('box', place)).toBe(true);
    expect(existsSync(folder)).toBe(false);
  });
});

describe('an end', () => {
  it('is remembered until the name is used again', async () => {
    const claim = await claimName('box', NATIVE, place);
    claim.release({ status: 3, reason: 'command' }, 1000);
    expect(listRecords(place)).toEqual([]);
    const ended = { ...claim.record, status: 3, reason: 'command', endedAt: '1970-01-01T00:00:01.000Z' };
    expect(endedRecordOf('box', place)).toEqual(ended);
    expect(clearDead('box', place)).toBe(true);
    expect(listEnded(place)).toEqual([ended]);
    const next = await claimName('box', NATIVE, place);
    expect(endedRecordOf('box', place)).toBeUndefined();
    next.release();
  });

  it('is forgotten behind 32 others, the oldest first', async () => {
    for (let at = 0; at < 34; at++) {
      (await claimName(`box${at}`, NATIVE, place)).release({ status: 0, reason: 'poweroff' }, at * 1000);
    }
    (await claimName('last', NATIVE, place)).release();
    const kept = listEnded(place).map(({ name }) => name);
    expect(kept).toHaveLength(32);
    expect(kept).not.toContain('box0');
    expect(kept).not.toContain('box1');
  });

  it('that can not be forgotten refuses nobody a name', async () => {
    for (let at = 0; at < 33; at++) {
      (await claimName(`box${at}`, NATIVE, place)).release({ status: 0, reason: 'poweroff' }, at * 1000);
    }
    const lockPath = join(place.folder, 'box0', 'lock');
    rmSync(lockPath, { force: true });
    symlinkSync('/etc/hostname', lockPath);
    const claim = await claimName('next', NATIVE, place);
    expect(recordOf('next', place)?.id).toBe(claim.record.id);
    claim.release();
  });

  it('that came after the list was made is not forgotten in the place of the one before', async () => {
    for (let at = 0; at < 33; at++) {
      (await claimName(`box${at}`, NATIVE, place)).release({ status: 0, reason: 'poweroff' }, at * 1000);
    }
    // Between the list and the lock on box0 another machine of that name comes and ends.
    let calls = 0;
    const again = { ...endedRecordOf('box0', place)!, id: 'another', endedAt: '2030-01-01T00:00:00.000Z' };
    const lock: typeof place.lock = (fd, mode) => {
      if (++calls === 2) writeFileSync(join(place.folder, 'box0', 'ended.json'), JSON.stringify(again));
      return place.lock(fd, mode);
    };
    (await claimName('next', NATIVE, { ...place, lock })).release();
    expect(calls).toBe(2);
    expect(endedRecordOf('box0', place)).toEqual(again);
  });
});

it('finds no machine in what is no record', () => {
  for (const [name, text] of [
    ['broken', '{'],
    ['other', JSON.stringify({ name: 'box', id: 'x', pid: 1, host: 'native', since: 'now' })],
    ['number', '7'],
    ['unheld', JSON.stringify({ name: 'unheld', id: 'x', pid: 1, host: 'native', since: 'now' })],
    ['held', JSON.stringify({ name: 'held', id: 'x', pid: 1, host: 'native', since: 'now', holder: { pid: '1' } })],
  ] as const) {
    mkdirSync(join(place.folder, name));
    writeFileSync(join(place.folder, name, 'machine.json'), text);
  }
  writeFileSync(join(place.folder, 'file'), '');
  expect(listRecords(place)).toEqual([]);
});

it('refuses a name that is held without a record of by whom', async () => {
  const claim = await claimName('box', NATIVE, place);
  const record = { name: 'box', id: 'x', pid: 1, host: 'native', since: 'now' };
  writeFileSync(join(claim.folder, 'machine.json'), JSON.stringify(record));
  await expect(claimName('box', NATIVE, place)).rejects.toMatchObject({
    code: 'ERR_NAME_TAKEN',
    message: expect.stringContaining('held by another process'),
  });
  claim.release();
});

import { fstatSync, mkdtempSync, readdirSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { claimMac, type MacClaimPlace } from './mac-claims.js';

const MAC = 0x020000000001;
const FILE = '02-00-00-00-00-01';
let folder: string;
/** Inodes that somebody has locked; an own claim's stays until the test says otherwise. */
let locked: Set<number>;
let place: MacClaimPlace;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vivarium-macs-'));
  locked = new Set();
  place = {
    folder,
    lock: (fd) => {
      const { ino } = fstatSync(fd);
      if (locked.has(ino)) return false;
      locked.add(ino);
      return true;
    },
  };
});
afterEach(() => rmSync(folder, { recursive: true }));

const claim = (mac: number | undefined, id = 'net0', machine = 'vm') => claimMac({ machine, id, mac }, place);

describe('claimMac', () => {
  it('gives the address that is wanted once, and again when it is released', () => {
    const first = claim(MAC);
    expect(first.mac).toBe(MAC);
    expect(() => claim(MAC, 'lan')).toThrow(
      expect.objectContaining({
        code: 'ERR_STATE',
        message: `nic lan: 02:00:00:00:00:01 is the address of nic net0 of machine vm, process ${process.pid}`,
      }),
    );
    first.release();
    expect(readdirSync(folder)).toEqual([]);
    locked.clear();
    const second = claim(MAC);
    // A second release is not one of somebody else's claim.
    first.release();
    expect(readdirSync(folder)).toEqual([FILE]);
    second.release();
  });

  it('takes over what a process that is gone has left', () => {
    writeFileSync(join(folder, FILE), 'nic net0 of machine gone, process 1');
    expect(claim(MAC).mac).toBe(MAC);
  });

  it('looks again when the file went while it was locked', () => {
    const { lock } = place;
    let removals = 0;
    place = {
      folder,
      lock: (fd, mode) => {
        if (removals++ > 0) return lock(fd, mode);
        unlinkSync(join(folder, FILE));
        return true;
      },
    };
    claim(MAC);
    expect(readdirSync(folder)).toEqual([FILE]);
    expect(removals).toBe(2);
  });

  it('goes on to the next default where a namesake has the first', () => {
    const macs = [claim(undefined), claim(undefined), claim(undefined, 'net1'), claim(undefined, 'net0', 'other')];
    expect(new Set(macs.map(({ mac }) => mac)).size).toBe(4);
    // Locally administered, of no group.
    expect(macs.map(({ mac }) => Math.floor(mac / 2 ** 40) & 3)).toEqual([2, 2, 2, 2]);
    for (const taken of macs) taken.release();
    locked.clear();
    expect(claim(undefined).mac).toBe(macs[0]!.mac);
    expect(claim(undefined).mac).toBe(macs[1]!.mac);
  });

  it('says which folder it can not use', () => {
    place = { ...place, folder: join(folder, 'missing') };
    expect(() => claim(MAC)).toThrow(expect.objectContaining({ code: 'ERR_SYSTEM', errno: 'ENOENT' }));
  });

  it('says so when it can not write who has the address', () => {
    symlinkSync('/dev/full', join(folder, FILE));
    expect(() => claim(MAC)).toThrow(
      expect.objectContaining({ code: 'ERR_SYSTEM', syscall: 'ftruncate', errno: 'EINVAL' }),
    );
  });
});

import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  type Fence,
  fenceOf,
  isWithin,
  orFenced,
  passtKeeperOf,
  realPathOf,
  requireNetwork,
  requireWritable,
} from './fence.js';

const root = realpathSync(mkdtempSync(join(tmpdir(), 'vivarium-fence-')));
afterAll(() => rmSync(root, { recursive: true }));
mkdirSync(join(root, 'own'));
mkdirSync(join(root, 'other'));
symlinkSync(join(root, 'other'), join(root, 'own/link'));

const networks = { tap: false, switch: true, passt: false };
const fence: Fence = { write: [join(root, 'own')], networks, landlock: 6, sealed: true };

describe('fenceOf', () => {
  it('is what was asked for, what the kernel gave, and what was given up', () => {
    const asked = { write: ['/a'], networks };
    const env = { VIVARIUM_FENCE: JSON.stringify(asked), VIVARIUM_FENCED: '4' };
    expect(fenceOf(env)).toEqual({ ...asked, landlock: 4, sealed: false });
    expect(fenceOf({ ...env, VIVARIUM_SEALED: 'seccomp' })).toMatchObject({ sealed: true });
    // A launcher that did not run has fenced nothing.
    expect(fenceOf({ VIVARIUM_FENCE: JSON.stringify(asked) })).toBeUndefined();
  });
});

describe('passtKeeperOf', () => {
  it('is the socket of who is fenced, and of nobody else', () => {
    const env = { VIVARIUM_FENCE: JSON.stringify({ write: [], networks }), VIVARIUM_PASST_KEEPER: '5' };
    expect(passtKeeperOf({ ...env, VIVARIUM_FENCED: '0' })).toBe(5);
    expect(passtKeeperOf(env)).toBeUndefined();
    expect(passtKeeperOf({ ...env, VIVARIUM_FENCED: '6', VIVARIUM_PASST_KEEPER: undefined })).toBeUndefined();
  });
});

describe('requireWritable', () => {
  it('lets through what is within, by the names that the kernel has', () => {
    requireWritable(join(root, 'own'), fence);
    requireWritable(join(root, 'own/new/below'), fence);
    for (const out of ['other', 'own/link', 'own/link/new', 'own/../other', 'owner'])
      expect(() => requireWritable(`${root}/${out}`, fence)).toThrow(expect.objectContaining({ code: 'ERR_FENCED' }));
  });

  it('has nothing to say without a fence, or without Landlock', () => {
    requireWritable('/', undefined);
    requireWritable('/', { ...fence, landlock: 0 });
  });
});

describe('orFenced', () => {
  const denied = (path: string, code = 'EACCES'): Error =>
    new Error('the disk refuses', { cause: Object.assign(new Error(`${code}: open`), { code, path }) });

  it('names the folder that is not lent, and its cure', () => {
    const path = join(root, 'other/disk.1.qcow2');
    expect(orFenced(denied(path), fence)).toMatchObject({
      code: 'ERR_FENCED',
      message: expect.stringContaining(join(root, 'other')) as string,
      cure: expect.stringContaining(`--allow-path ${join(root, 'other')}`) as string,
      cause: { message: 'the disk refuses' },
    });
  });

  it('leaves every other failure as it is', () => {
    const others = [
      denied(join(root, 'own/image')),
      denied(join(root, 'other/image'), 'ENOSPC'),
      // It is there: it was not to be made.
      denied(join(root, 'other')),
      new Error('other'),
    ];
    for (const error of others) expect(orFenced(error, fence)).toBe(error);
    const error = denied(join(root, 'other/image'));
    expect(orFenced(error, undefined)).toBe(error);
    expect(orFenced(error, { ...fence, landlock: 0 })).toBe(error);
  });
});

describe('requireNetwork', () => {
  it('lets through what the machine was started with', () => {
    requireNetwork('switch', fence);
    const onPasst = { ...fence, networks: { tap: false, switch: false, passt: true } };
    requireNetwork('passt', onPasst);
    for (const [kind, holds] of [
      ['passt', fence],
      ['passt', { ...fence, sealed: false }],
      ['passt', { ...fence, landlock: 0 }],
      ['tap', onPasst],
      ['switch', onPasst],
    ] as const)
      expect(() => requireNetwork(kind, holds)).toThrow(expect.objectContaining({ code: 'ERR_FENCED' }));
    requireNetwork('passt', { ...fence, sealed: false, landlock: 0 });
    requireNetwork('passt', undefined);
  });
});

describe('paths', () => {
  it('are within a folder by whole names', () => {
    expect(isWithin('/a/b', '/a')).toBe(true);
    expect(isWithin('/ab', '/a')).toBe(false);
    expect(isWithin('/a', '/')).toBe(true);
  });

  it('are resolved also where nothing is', () => {
    expect(realPathOf(join(root, 'own/link/new'))).toBe(join(root, 'other/new'));
    expect(realPathOf('/nothing-is-here/below')).toBe('/nothing-is-here/below');
  });
});

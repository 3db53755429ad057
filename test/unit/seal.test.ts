/** What a Node process can still do when it has given up what a machine's gives up, with the addon's own eyes. */
import { execFile } from 'node:child_process';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const child = fileURLToPath(new URL('../lib/sealed-child.mjs', import.meta.url));

async function outcomeOf(...args: string[]): Promise<Record<string, unknown>> {
  const { stdout } = await promisify(execFile)(process.execPath, [child, ...args]);
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, unknown>;
}

describe('a sealed process', () => {
  it('starts threads and listens, but no program; its disks have the rings that it made before', async () => {
    const outcome = await outcomeOf();
    // Where the kernel offers none to this user there is none before either.
    const ring = outcome['first'] === 'read' ? 'read' : 'EPERM';
    expect(outcome).toEqual({
      errno: 0,
      start: -constants.errno.EPERM,
      worker: 'done',
      listen: 'done',
      first: ring,
      second: ring,
      third: 'EPERM',
      auto: 'threads',
    });
  });

  it('is sealed before the first thread of ours, or not at all', async () => {
    expect(await outcomeOf('--threads-first')).toMatchObject({ errno: constants.errno.EBUSY, start: 'done' });
  });
});

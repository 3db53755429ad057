/** Mistakes of users, through the built command: one clear message that names the thing, status 125, nothing started. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { vivarium } from '../lib/command.js';

const folder = mkdtempSync(join(tmpdir(), 'vivarium-bad-'));
afterAll(() => rmSync(folder, { recursive: true }));

const file = (name: string, content: Buffer | string): string => {
  writeFileSync(join(folder, name), content);
  return name;
};

/** An ELF header as a 32-bit kernel without PVH note or multiboot header has it. */
function elf32(): Buffer {
  const header = Buffer.alloc(4096);
  header.write('\x7fELF\x01\x01\x01', 'latin1');
  header.writeUInt16LE(2, 16);
  header.writeUInt16LE(3, 18);
  header.writeUInt32LE(1, 20);
  header.writeUInt32LE(0x100000, 24);
  header.writeUInt32LE(52, 28);
  header.writeUInt16LE(52, 40);
  header.writeUInt16LE(32, 42);
  header.writeUInt16LE(1, 44);
  header.writeUInt32LE(1, 52);
  header.writeUInt32LE(0x100000, 60);
  header.writeUInt32LE(0x100000, 64);
  header.writeUInt32LE(4096, 68);
  header.writeUInt32LE(4096, 72);
  return header;
}

const refused = async (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> => {
  const { status, stdout, stderr } = await vivarium(['run', '--quiet', ...args], { cwd: folder, env });
  expect(stdout, stderr).toHaveLength(0);
  expect(status, stderr).toBe(125);
  return stderr;
};

describe('refused before anything starts', () => {
  it.each([
    [['--kernel', 'missing'], /^vivarium: --kernel missing: there is no such file\n$/],
    [['--kernel', '.'], /^vivarium: --kernel \.: is a directory, not a file\n$/],
    [['--kernel', '/dev/zero'], /^vivarium: --kernel \/dev\/zero: is not a regular file\n$/],
    [['--initrd', 'missing'], /^vivarium: --initrd missing: there is no such file\n$/],
    [['--memory', '0'], /^vivarium: --memory: 0 bytes is less than 1 MiB\n$/],
    [['--memory', '1'], /^vivarium: --memory: 1 bytes is less than 1 MiB\n$/],
    [['--memory', '1048577'], /^vivarium: --memory: 1048577 bytes is not a multiple of 4096\n$/],
    [['--memory', String(2 ** 52)], /^vivarium: --memory: .* is more than this host has/],
    [['--cpus', '0'], /^vivarium: --cpus: at least 1 is wanted\n$/],
    [['--memroy', '1G'], /^vivarium: unknown option '--memroy'; did you mean '--memory'\?/],
    [['--disk', 'x'], /^vivarium: --disk x: there is no such file/],
  ])('%j', async (args, message) => {
    expect(await refused(args)).toMatch(message);
  });

  it('an empty kernel, an initrd larger than memory', async () => {
    expect(await refused(['--kernel', file('empty', '')])).toMatch(/^vivarium: --kernel empty: is empty\n$/);
    const large = file('large', Buffer.alloc(2 ** 21));
    expect(await refused(['--memory', '1M', '--initrd', large])).toMatch(/--initrd large: its 2 MiB do not fit/);
  });

  it('a KVM that is not there, with the cure', async () => {
    const words = await refused(['--kvm', 'native'], { VIVARIUM_KVM: join(folder, 'no-kvm') });
    expect(words).toMatch(/^vivarium: --kvm native: .*no-kvm.*\nvivarium: to cure it: .+\n$/);
  });
});

describe('refused by the machine, wherever it runs, in the words of the user', () => {
  it.each([
    [
      'a file that is no kernel',
      () => ['--kernel', file('text', 'hello'.repeat(1000))],
      /text': .*neither a bzImage nor an ELF/,
    ],
    ['a 32-bit kernel', () => ['--kernel', file('elf32', elf32())], /elf32': .*32-bit/],
    ['more CPUs than KVM allows', () => ['--cpus', '5000'], /cpus: 5000/],
    ['a command line that is too long', () => ['--cmdline', 'x'.repeat(5000)], /command line.*5000/],
  ])('%s', async (_name, args, message) => {
    expect(await refused(args())).toMatch(message);
  });

  it('more memory than this machine can spare', async () => {
    const bytes = Math.floor(totalmem() / 4096) * 4096;
    expect(await refused(['--memory', String(bytes)])).toMatch(/^vivarium: .*memory/);
  });
});

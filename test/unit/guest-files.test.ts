/**
 * Files of a guest by the tools that guests have: the C agent on this Linux, and each of the shells that stand in guests, with
 * their own cat, stat and chmod.
 */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, type TestContext } from 'vitest';
import { listGuestFolder, readGuestFile, writeGuestFile, type GuestTools } from '../../lib/agent/guest-files.js';
import { Cache } from '../../lib/images/cache.js';
import { buildNativeAgent, startNativeAgent, type NativeAgent } from '../lib/native-agent.js';

const NOBODY = 65534;
/** Names that are patterns, options, or nearly the folder itself; in Latin-1. */
const AWKWARD = [
  '..x',
  '...',
  '.x',
  '*',
  '.*',
  '.[!.]*',
  '..?*',
  '[a]',
  '-c',
  '--',
  '-',
  '\\',
  '\n',
  ' ',
  '\x81',
  '$(x)',
  '\xff',
];
const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-guest-files-'));
const program = path.join(folder, 'agent');
let agent: NativeAgent;
let place: string;

beforeAll(() => {
  chmodSync(folder, 0o755);
  buildNativeAgent(program);
}, 60_000);
beforeEach(() => {
  // Not root, who may do anything.
  const isRoot = process.getuid?.() === 0;
  agent = startNativeAgent(program, isRoot ? { uid: NOBODY, gid: NOBODY } : {});
  place = mkdtempSync(path.join(folder, 'place-'));
  chmodSync(place, 0o777);
});
afterEach(() => agent.child.kill('SIGKILL'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Where a guest's `sh` and tools come from; undefined where this machine has not got it. */
function toolsOf(shell: string): string | undefined {
  const cached = new Cache();
  const key = cached.current('busybox');
  const ours = key === undefined ? '' : path.join(cached.path, 'busybox', key, 'busybox');
  const found = [shell === 'busybox' ? ours : '', `/bin/${shell}`, `/usr/bin/${shell}`].find((name) =>
    existsSync(name),
  );
  if (found === undefined) return undefined;
  const bin = path.join(folder, `bin-${shell}`);
  if (existsSync(bin)) return bin;
  mkdirSync(bin);
  // Where nobody can reach it, too.
  const own = path.join(bin, shell);
  writeFileSync(own, readFileSync(found), { mode: 0o755 });
  symlinkSync(own, path.join(bin, 'sh'));
  for (const tool of ['cat', 'stat', 'chmod'])
    symlinkSync(shell === 'busybox' ? own : `/bin/${tool}`, path.join(bin, tool));
  return bin;
}

function guestOf(shell: string, context: TestContext): GuestTools {
  const bin = toolsOf(shell) ?? context.skip(`there is no ${shell} on this machine`);
  const { client } = agent;
  return {
    ready: (options) => client.ready(options),
    run: (options) => client.run({ ...options, env: { ...options.env, PATH: bin } }),
  };
}

describe.each(['dash', 'bash', 'busybox'])('with %s', (shell) => {
  const at = (...names: string[]): string => path.join(place, ...names);

  it('a file is written and read as it is, with its mode', async (context) => {
    const guest = guestOf(shell, context);
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * 7919) % 256));
    await writeGuestFile(guest, at('a; "odd" $name\n'), bytes);
    expect(readFileSync(at('a; "odd" $name\n')).equals(bytes)).toBe(true);
    expect((await readGuestFile(guest, at('a; "odd" $name\n'))).equals(bytes)).toBe(true);
    expect(statSync(at('a; "odd" $name\n')).mode & 0o7777).toBe(0o644);
    await writeGuestFile(guest, at('key'), Buffer.from('one'), { mode: 0o400 });
    expect(statSync(at('key')).mode & 0o7777).toBe(0o400);
    chmodSync(at('key'), 0o640);
    await writeGuestFile(guest, at('key'), Buffer.from('two'));
    await writeGuestFile(guest, at('key'), Buffer.from('!'), { append: true });
    expect((await readGuestFile(guest, at('key'))).toString()).toBe('two!');
    expect(statSync(at('key')).mode & 0o7777).toBe(0o640);
    await writeGuestFile(guest, at('key'), Buffer.alloc(0));
    expect(await readGuestFile(guest, at('key'))).toHaveLength(0);
  });

  it('what is wrong has a name', async (context) => {
    const guest = guestOf(shell, context);
    writeFileSync(at('secret'), 'x', { mode: 0o600 });
    mkdirSync(at('locked'), { mode: 0o700 });
    mkdirSync(at('unlisted'), { mode: 0o711 });
    if (process.getuid?.() !== 0) {
      for (const name of ['secret', 'locked']) chmodSync(at(name), 0);
      chmodSync(at('unlisted'), 0o311);
    }
    symlinkSync('loop', at('loop'));
    const bytes = Buffer.from('x');
    for (const [call, errno] of [
      [() => readGuestFile(guest, at('nope')), 'ENOENT'],
      [() => readGuestFile(guest, place), 'EISDIR'],
      [() => readGuestFile(guest, at('secret')), 'EACCES'],
      [() => readGuestFile(guest, at('loop')), 'ELOOP'],
      [() => readGuestFile(guest, at('secret', 'x')), 'ENOTDIR'],
      [() => writeGuestFile(guest, at('nope', 'x'), bytes), 'ENOENT'],
      [() => writeGuestFile(guest, place, bytes), 'EISDIR'],
      [() => writeGuestFile(guest, at('secret'), bytes), 'EACCES'],
      [() => writeGuestFile(guest, at('locked', 'x'), bytes), 'EACCES'],
      [() => writeGuestFile(guest, '/dev/full', bytes), 'ENOSPC'],
      [() => listGuestFolder(guest, at('nope')), 'ENOENT'],
      [() => listGuestFolder(guest, at('secret')), 'ENOTDIR'],
      [() => listGuestFolder(guest, at('locked')), 'EACCES'],
      [() => listGuestFolder(guest, at('unlisted')), 'EACCES'],
    ] as const) {
      await expect(call()).rejects.toMatchObject({ code: 'ERR_GUEST_FILE', errno });
    }
  });

  it('a folder is listed with all that is in it, hundreds of them too', async (context) => {
    const guest = guestOf(shell, context);
    expect(await listGuestFolder(guest, place)).toEqual([]);
    mkdirSync(at('sub'), { mode: 0o750 });
    writeFileSync(at('file'), 'hello');
    symlinkSync('/nowhere', at('dangling'));
    execFileSync('mkfifo', ['-m', '600', at('.pipe')]);
    const seconds = Math.floor(statSync(at('file')).mtimeMs / 1000);
    const entries = await listGuestFolder(guest, place);
    expect(entries.map(({ name, type }) => `${name} ${type}`)).toEqual([
      '.pipe pipe',
      'dangling link',
      'file file',
      'sub directory',
    ]);
    expect(entries[2]).toEqual({ name: 'file', type: 'file', sizeBytes: 5, mode: 0o644, modifiedMs: seconds * 1000 });
    const names = Array.from({ length: 450 }, (_, index) => `n${index}`);
    for (const name of names) writeFileSync(at('sub', name), '');
    chmodSync(at('sub'), 0o755);
    expect((await listGuestFolder(guest, at('sub'))).map(({ name }) => name)).toEqual(names.sort());
    expect((await listGuestFolder(guest, '/dev')).find(({ name }) => name === 'null')).toMatchObject({
      type: 'device',
    });
  });

  it('names are any bytes, and lead back to their files', { timeout: 60_000 }, async (context) => {
    const guest = guestOf(shell, context);
    // More often what a shell, a pattern or an option is made of, and what dash keeps for itself (0x81 to 0x88).
    const byte = fc
      .oneof(
        fc.constantFrom(...Buffer.from('-.*?[]!\\\'"$`~ \t\n#;&|<>(){}=/')),
        fc.integer({ min: 0x80, max: 0x8a }),
        fc.integer({ min: 1, max: 255 }),
      )
      .filter((value) => value !== 0x2f);
    const name = fc
      .array(byte, { minLength: 1, maxLength: 12 })
      .map((bytes) => Buffer.from(bytes))
      .filter((bytes) => !['.', '..'].includes(bytes.toString('latin1')));
    const names = fc.uniqueArray(name, { minLength: 1, maxLength: 40, selector: (bytes) => bytes.toString('hex') });
    await fc.assert(
      fc.asyncProperty(names, async (wanted) => {
        const here = mkdtempSync(path.join(place, 'd-'));
        chmodSync(here, 0o777);
        const of = (bytes: Uint8Array): Buffer => Buffer.concat([Buffer.from(`${here}/`), bytes]);
        for (const bytes of wanted) writeFileSync(of(bytes), bytes);
        const entries = await listGuestFolder(guest, here);
        const found = entries.map(({ name: text, nameBytes }) => nameBytes ?? Buffer.from(text));
        expect(found.map((bytes) => Buffer.from(bytes).toString('hex'))).toEqual(
          [...wanted].sort(Buffer.compare).map((bytes) => bytes.toString('hex')),
        );
        const [first] = found;
        expect((await readGuestFile(guest, of(first!))).equals(Buffer.from(first!))).toBe(true);
        const other = Buffer.concat([of(first!), Buffer.from('2')]);
        await writeGuestFile(guest, other, first!);
        expect(readFileSync(other).equals(Buffer.from(first!))).toBe(true);
      }),
      { numRuns: 30, examples: [[AWKWARD.map((text) => Buffer.from(text, 'latin1'))]] },
    );
  });
});

it('a guest with a shell and nothing else lacks the tools', async (context) => {
  const bin = path.join(toolsOf('dash') ?? context.skip('there is no dash on this machine'), '..', 'bin-bare');
  mkdirSync(bin);
  symlinkSync('../bin-dash/dash', path.join(bin, 'sh'));
  const { client } = agent;
  const guest: GuestTools = {
    ready: (options) => client.ready(options),
    run: (options) => client.run({ ...options, env: { PATH: bin } }),
  };
  writeFileSync(path.join(place, 'x'), 'x');
  await expect(readGuestFile(guest, path.join(place, 'x'))).rejects.toMatchObject({ errno: 'ENOSYS' });
  await expect(listGuestFolder(guest, place)).rejects.toMatchObject({ errno: 'ENOSYS' });
  await expect(listGuestFolder(guest, path.join(place, 'x'))).rejects.toMatchObject({ errno: 'ENOSYS' });
  await expect(writeGuestFile(guest, path.join(place, 'y'), Buffer.from('y'))).rejects.toMatchObject({
    errno: 'ENOSYS',
  });
});

import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { GuestFileError } from '../base/errors.js';
import { AgentClient } from './client.js';
import { answering, FakeAgent, FakeChannel, type FakeProcess } from './fake-agent.js';
import { listGuestFolder, MAX_GUEST_FILE_BYTES, readGuestFile, writeGuestFile } from './guest-files.js';
import { MAX_ENTRIES, parseListing } from './guest-listing.js';

let clock: ManualClock;
let channel: FakeChannel;
let agent: FakeAgent;
let client: AgentClient;
/** What the guest does with each command. */
let play: (process: FakeProcess) => void;

beforeEach(() => {
  clock = new ManualClock();
  channel = new FakeChannel();
  client = new AgentClient(channel, { clock });
  agent = new FakeAgent(channel, (process) => play(process));
  agent.boot();
});

describe('a file', () => {
  it('is read by one command, from the root on', async () => {
    play = answering('hello\n');
    expect((await readGuestFile(client, 'etc/motd')).toString()).toBe('hello\n');
    expect(agent.processes.get(1)?.request).toMatchObject({ argv: ['cat', '/etc/motd'], env: { LC_ALL: 'C' } });
  });

  it('is written with its bytes, mode and place', async () => {
    play = (process) => {
      process.grantStdin(100);
      void process.until(() => process.stdinEnded).then(() => process.exit(0));
    };
    await writeGuestFile(client, '/etc/key', Buffer.from([0, 255, 10]), { mode: 0o600, append: true });
    const { request, stdin } = agent.processes.get(1)!;
    expect(request.argv.slice(3)).toEqual(['write', '/etc/key', '0600', '0177', 'append']);
    expect([...stdin]).toEqual([0, 255, 10]);
    await writeGuestFile(client, '/etc/key', Buffer.alloc(0));
    expect(agent.processes.get(2)!.request.argv.slice(3)).toEqual(['write', '/etc/key', '', '0133', '']);
  });

  it.each([
    ["cat: can't open '/x': No such file or directory", 'ENOENT', '/x in the guest: no such file or directory'],
    ['sh: 2: cannot create /x/y: Directory nonexistent', 'ENOENT', '/x in the guest: no such file or directory'],
    ['cat: read error: Is a directory', 'EISDIR', '/x in the guest: is a directory'],
    ['cat: /x: Permission denied', 'EACCES', '/x in the guest: permission denied'],
    ['cat: /Is a directory: Read-only file system\n', 'EROFS', '/x in the guest: read-only file system'],
    ['cat: \u001b[2J: what?', undefined, '/x in the guest: cat: ?[2J: what?'],
    ['', undefined, '/x in the guest: cat in the guest failed'],
  ])('that is refused with %j is %s', async (stderr, errno, message) => {
    play = answering('', stderr, 1);
    const refused = await readGuestFile(client, '/x').catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(GuestFileError);
    expect(refused).toMatchObject({ code: 'ERR_GUEST_FILE', errno, message });
  });

  it('of a guest without the tool says so', async () => {
    play = (process) => process.fail(2);
    await expect(readGuestFile(client, '/x')).rejects.toMatchObject({ errno: 'ENOSYS' });
    play = answering('', 'sh: stat: not found', 127);
    await expect(listGuestFolder(client, '/x')).rejects.toMatchObject({ errno: 'ENOSYS' });
  });

  it('that has no end is given up, and its command killed', async () => {
    let sent = 0;
    play = (process) => {
      const piece = Buffer.alloc(32 * 1024);
      const more = (): void => {
        if (process.signals.length > 0) return;
        process.stdout(piece);
        sent += piece.length;
        setImmediate(more);
      };
      setImmediate(more);
    };
    await expect(readGuestFile(client, '/dev/zero')).rejects.toMatchObject({
      errno: 'EFBIG',
      message: '/dev/zero in the guest: it is more than 16777216 bytes',
      cure: 'cp copies files of any size',
    });
    expect(agent.processes.get(1)!.signals).toEqual([9]);
    expect(sent).toBeLessThan(MAX_GUEST_FILE_BYTES + 1024 * 1024);
  });

  it('of exactly the bound is taken, and one byte more is not', async () => {
    play = answering('12345');
    expect(await readGuestFile(client, '/x', { maxBytes: 5 })).toHaveLength(5);
    await expect(readGuestFile(client, '/x', { maxBytes: 4 })).rejects.toMatchObject({ errno: 'EFBIG' });
    play = answering('');
    expect(await readGuestFile(client, '/x', { maxBytes: 0 })).toHaveLength(0);
  });

  it('is given up with the call, and not waited for without an agent', async () => {
    play = () => undefined;
    const stop = new AbortController();
    const reading = readGuestFile(client, '/fifo', { signal: stop.signal });
    await expect.poll(() => agent.processes.size).toBe(1);
    stop.abort();
    await expect(reading).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(agent.processes.get(1)!.signals).toEqual([9]);
    channel.open();
    const late = readGuestFile(client, '/x', { waitMs: 50 });
    late.catch(() => undefined);
    clock.advance(50_000_000n);
    await expect(late).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    client.close();
    await expect(readGuestFile(client, '/x')).rejects.toMatchObject({ code: 'ERR_AGENT' });
  });

  it.each([
    ['a NUL', () => readGuestFile(client, '/a\0b'), TypeError],
    ['half a character', () => readGuestFile(client, '/\ud800'), TypeError],
    ['a long path', () => listGuestFolder(client, Buffer.alloc(4097, 'x')), RangeError],
    ['a bound that is none', () => readGuestFile(client, '/x', { maxBytes: 2 ** 30 }), RangeError],
    ['a mode that is none', () => writeGuestFile(client, '/x', Buffer.alloc(0), { mode: 0o10000 }), RangeError],
    ['more than is taken', () => writeGuestFile(client, '/x', Buffer.alloc(MAX_GUEST_FILE_BYTES + 1)), RangeError],
  ])('with %s is refused before the guest hears of it', async (_what, call, kind) => {
    await expect(call()).rejects.toThrow(kind);
    expect(agent.processes.size).toBe(0);
  });
});

describe('a folder', () => {
  it('is told by name, with what kind each is', async () => {
    play = answering(
      'b c/81a4 12 1700000000\na\n/41ed 4096 -1\ne/c000 0 0\nd/b180 0 0\nf/a1ff 3 1\n..x/11a4 0 2\ng/8fff 0 3\n',
    );
    expect(await listGuestFolder(client, '/srv')).toEqual([
      { name: '..x', type: 'pipe', sizeBytes: 0, mode: 0o644, modifiedMs: 2000 },
      { name: 'a\n', type: 'directory', sizeBytes: 4096, mode: 0o755, modifiedMs: -1000 },
      { name: 'b c', type: 'file', sizeBytes: 12, mode: 0o644, modifiedMs: 1_700_000_000_000 },
      { name: 'd', type: 'other', sizeBytes: 0, mode: 0o600, modifiedMs: 0 },
      { name: 'e', type: 'socket', sizeBytes: 0, mode: 0, modifiedMs: 0 },
      { name: 'f', type: 'link', sizeBytes: 3, mode: 0o777, modifiedMs: 1000 },
      { name: 'g', type: 'file', sizeBytes: 0, mode: 0o7777, modifiedMs: 3000 },
    ]);
  });

  it.each([
    ['no name', '/81a4 0 0\n'],
    ['the folder itself', './41ed 0 0\n'],
    ['the folder above', '../41ed 0 0\n'],
    ['a NUL', 'a\0b/81a4 0 0\n'],
    ['a name that is too long', `${'x'.repeat(256)}/81a4 0 0\n`],
    ['a path', 'etc/passwd/81a4 0 0\n'],
    ['no mode', 'a/zz 0 0\n'],
    ['a size without end', `a/81a4 ${'9'.repeat(16)} 0\n`],
    ['a line without end', `a/81a4 0 0${' '.repeat(100)}\n`],
    ['half a line', 'a/81a4 0'],
    ['half a name', 'a/81a4 0 0\nb'],
    ['noise', Buffer.from([255, 0, 10, 47, 47])],
  ])('with %s is none', async (_what, stdout) => {
    play = answering(stdout);
    await expect(listGuestFolder(client, '/srv')).rejects.toMatchObject({ code: 'ERR_GUEST_FILE', errno: 'EPROTO' });
  });

  it('of more entries than are taken is refused', () => {
    const lines = (count: number): Buffer =>
      Buffer.from(Array.from({ length: count }, (_, index) => `${index}/81a4 0 0\n`).join(''));
    expect(parseListing('/srv', lines(MAX_ENTRIES))).toHaveLength(MAX_ENTRIES);
    expect(() => parseListing('/srv', lines(MAX_ENTRIES + 1))).toThrow('/srv: there are more than 100000 entries');
  });

  it('gives back every name that Linux allows, byte by byte', () => {
    const byte = fc.integer({ min: 1, max: 255 }).filter((value) => value !== 0x2f);
    const name = fc
      .uint8Array({ minLength: 1, maxLength: 255 })
      .chain(({ length }) => fc.array(byte, { minLength: length, maxLength: length }))
      .map((bytes) => Buffer.from(bytes))
      .filter((bytes) => !['.', '..'].includes(bytes.toString('latin1')));
    fc.assert(
      fc.property(fc.uniqueArray(name, { selector: (bytes) => bytes.toString('hex') }), (names) => {
        const told = Buffer.concat(names.map((bytes) => Buffer.concat([bytes, Buffer.from('/81a4 7 9\n')])));
        const entries = parseListing('/', told);
        const found = entries.map(({ name: text, nameBytes = Buffer.from(text) }) => Buffer.from(nameBytes));
        expect(found).toEqual([...names].sort(Buffer.compare));
      }),
    );
  });

  it('is a listing or none, whatever the guest sends', () => {
    const sound = Buffer.from('a/81a4 12 1700000000\nb c/41ed 4096 -1\n');
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        (changes) => {
          const bytes = Buffer.from(sound);
          for (const [at, value] of changes) bytes[at] = value;
          try {
            for (const { name, mode } of parseListing('/', bytes)) {
              expect(name).not.toMatch(/[/\0]|^\.{0,2}$/);
              expect(mode).toBeLessThanOrEqual(0o7777);
            }
          } catch (error) {
            expect(error).toMatchObject({ code: 'ERR_GUEST_FILE', errno: 'EPROTO' });
          }
        },
      ),
    );
  });
});

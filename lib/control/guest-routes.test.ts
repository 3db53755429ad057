/** What is asked of a guest over real sockets, the guest's tools being the test's. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Value } from '@sinclair/typebox/value';
import { answering, type FakeProcess } from '../agent/fake-agent.js';
import { GuestFileError } from '../base/errors.js';
import { controlClient } from './client.js';
import { Listening, Listing } from './guest-schemas.js';
import { claimName, type MachineClaim } from './machine-folders.js';
import { connect, type RemoteMachine } from './remote-machine.js';
import { listenFor, MachineControl, type ControlSocket } from './serve.js';
import { FakeControlled, ownPlace } from './testing.js';

let place: ReturnType<typeof ownPlace>;
let claim: MachineClaim;
let socket: ControlSocket;
let control: MachineControl;
let machine: FakeControlled;
let box: RemoteMachine;
/** What the guest does with each command. */
let play: (process: FakeProcess) => void;
const processes: FakeProcess[] = [];

beforeEach(async () => {
  place = ownPlace();
  processes.length = 0;
  claim = await claimName('box', { host: 'native' }, place);
  machine = new FakeControlled('box', (process) => {
    processes.push(process);
    play(process);
  });
  control = new MachineControl(machine, { record: claim.record });
  socket = await listenFor(claim, (stream) => control.accept(stream));
  box = await connect('box', { place });
  machine.agent.boot();
});
afterEach(async () => {
  const closed = socket.close();
  await control.close({ reason: 'killed' });
  await closed;
  claim.release();
  place.done();
});

const taking = (process: FakeProcess): void => {
  process.grantStdin(2 ** 25);
  void process.until(() => process.stdinEnded).then(() => process.exit(0));
};

describe('a file of the guest', () => {
  it.each([Buffer.alloc(0), Buffer.from([0, 10, 255]), Buffer.alloc(300_000, 'x')])(
    'is read and written over the socket (case %#)',
    async (bytes) => {
      play = answering(bytes);
      expect(Buffer.from(await box.readFile('etc/a b?&#%41')).equals(bytes)).toBe(true);
      expect(processes[0]!.request.argv).toEqual(['cat', '/etc/a b?&#%41']);
      play = taking;
      await box.writeFile('/etc/x', bytes, { mode: 0o600, append: true });
      expect(processes[1]!.stdin.equals(bytes)).toBe(true);
      expect(processes[1]!.request.argv.slice(4)).toEqual(['/etc/x', '0600', '0177', 'append']);
    },
  );

  it('is written from text as UTF-8, and kept as it is but for its bytes', async () => {
    play = taking;
    await box.writeFile('/x', 'ü');
    expect([...processes[0]!.stdin]).toEqual([0xc3, 0xbc]);
    expect(processes[0]!.request.argv.slice(4)).toEqual(['/x', '', '0133', '']);
  });

  it('has an error with a code and an errno, also for curl', async () => {
    play = answering('', 'cat: x: No such file or directory', 1);
    const refused = await box.readFile('/x').catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(GuestFileError);
    expect(refused).toMatchObject({ code: 'ERR_GUEST_FILE', errno: 'ENOENT' });
    const client = controlClient('box', place);
    for (const [words, status] of [
      ['No such file or directory', 404],
      ['Permission denied', 403],
      ['Is a directory', 422],
    ] as const) {
      play = answering('', `cat: x: ${words}`, 1);
      const { request } = client.open('GET', '/v1/files', { query: { path: '/x' } });
      const answered = new Promise((resolve) => request.once('response', ({ statusCode }) => resolve(statusCode)));
      request.end();
      expect(await answered).toBe(status);
    }
  });

  it('that is too long is refused with what to do instead', async () => {
    play = answering('12345');
    await expect(box.readFile('/x', { maxBytes: 4 })).rejects.toMatchObject({
      errno: 'EFBIG',
      cure: 'cp copies files of any size',
    });
    await expect(box.writeFile('/x', Buffer.alloc(16 * 2 ** 20 + 1))).rejects.toThrow(RangeError);
    expect(processes).toHaveLength(1);
  });

  it('is let go of when the client goes, or has no agent to ask', async () => {
    play = () => undefined;
    const stop = new AbortController();
    const reading = box.readFile('/fifo', { signal: stop.signal });
    await expect.poll(() => processes.length).toBe(1);
    stop.abort();
    await expect(reading).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect.poll(() => processes[0]!.signals).toEqual([9]);
    machine.channel.open();
    await expect(box.readFile('/x', { waitMs: 10 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    machine.end({ reason: 'poweroff' });
    await expect(box.readFile('/x')).rejects.toMatchObject({ code: 'ERR_AGENT' });
  });

  it.each([
    ['no path', {}, 'querystring: one of path, pathBase64 is wanted'],
    ['two paths', { path: '/a', pathBase64: 'Lw==' }, 'querystring: one of path, pathBase64 is wanted'],
    ['a relative path', { path: 'a' }, 'querystring.path: an absolute path is wanted'],
    ['an unknown member', { path: '/a', mod: '600' }, 'querystring.mod: there is no such member'],
  ])('with %s is refused by name', async (_what, query, message) => {
    await expect(controlClient('box', place).bytes('GET', '/v1/files', { query })).rejects.toThrow(message);
    expect(processes).toEqual([]);
  });

  it('with a mode that is none is refused on both sides', async () => {
    await expect(box.writeFile('/x', '', { mode: 0o10000 })).rejects.toThrow(RangeError);
    const put = controlClient('box', place).bytes('PUT', '/v1/files', { query: { path: '/x', mode: '9' } });
    await expect(put).rejects.toThrow(/querystring.mode/);
    await expect(box.writeFile('/x', '', { mod: 1 } as object)).rejects.toThrow(
      "writeFile: unknown option 'mod'; did you mean 'mode'?",
    );
  });
});

describe('a folder of the guest', () => {
  it('is listed with names of any bytes, which lead back to their files', async () => {
    const odd = Buffer.from([0x66, 0xff, 0x0a]);
    play = answering(Buffer.concat([Buffer.from('a b/81a4 5 1700000000\n'), odd, Buffer.from('/41ed 4096 0\n')]));
    const entries = await box.list('/srv');
    expect(entries).toEqual([
      { name: 'a b', type: 'file', sizeBytes: 5, mode: 0o644, modifiedMs: 1_700_000_000_000 },
      {
        name: 'f\ufffd\n',
        nameBytes: Uint8Array.from(odd),
        type: 'directory',
        sizeBytes: 4096,
        mode: 0o755,
        modifiedMs: 0,
      },
    ]);
    const answer = await controlClient('box', place).request('GET', '/v1/files/list', { query: { path: '/srv' } });
    expect([...Value.Errors(Listing, answer)]).toEqual([]);
    play = answering('inside');
    await box.readFile(Buffer.concat([Buffer.from('srv/'), entries[1]!.nameBytes!]));
    // The fake guest reads its arguments as UTF-8.
    expect(processes.at(-1)!.request.argv).toEqual(['cat', '/srv/f\ufffd\n']);
  });

  it('that is none is told apart from one that lies', async () => {
    play = answering('', '/x: Not a directory', 1);
    await expect(box.list('/x')).rejects.toMatchObject({ errno: 'ENOTDIR' });
    play = answering('../81a4 0 0\n');
    await expect(box.list('/x')).rejects.toMatchObject({ errno: 'EPROTO' });
  });
});

describe('a port of the guest', () => {
  const HEAD = '  sl  local_address rem_address   st tx_queue\n';
  const SSH = '   0: 00000000:0016 00000000:0000 0A 00000000:00000000\n';

  it('is waited for, with the agent', async () => {
    machine.channel.open();
    play = answering(HEAD, '', 1);
    const waiting = box.waitForPort(22);
    waiting.catch(() => undefined);
    await box.summary();
    machine.agent.boot();
    await expect.poll(() => processes.length).toBeGreaterThan(1);
    play = answering(HEAD + SSH);
    expect(await waiting).toEqual({ port: 22, addresses: ['0.0.0.0'] });
    const answer = await controlClient('box', place).request('GET', '/v1/wait/port', { query: { port: 22 } });
    expect([...Value.Errors(Listening, answer)]).toEqual([]);
  });

  it('is given up in time, with the client, and with the guest', async () => {
    play = answering(HEAD);
    await expect(box.waitForPort(22, { timeoutMs: 20 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    const stop = new AbortController();
    const given = box.waitForPort(22, { signal: stop.signal });
    stop.abort();
    await expect(given).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    const last = box.waitForPort(22, { timeoutMs: Infinity });
    last.catch(() => undefined);
    await box.summary();
    machine.end({ reason: 'poweroff' });
    await expect(last).rejects.toMatchObject({ code: 'ERR_AGENT' });
  });

  it('is none of 0', async () => {
    await expect(box.waitForPort(0)).rejects.toThrow(RangeError);
    const asked = controlClient('box', place).request('GET', '/v1/wait/port', { query: { port: 0 } });
    await expect(asked).rejects.toThrow(/querystring.port/);
  });
});

/** A guest that has QEMU's agent alone, over real sockets: what exec, cp and stop do with what it can, and what they say of the rest. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FakeQemuGa, type FakeRequest } from '../agent/qemu/fake-qemu-ga.js';
import { claimName, type MachineClaim } from './machine-folders.js';
import { connect, type RemoteMachine } from './remote-machine.js';
import { listenFor, MachineControl, type ControlSocket } from './serve.js';
import { FakeControlled, ownPlace } from './testing.js';

let place: ReturnType<typeof ownPlace>;
let claim: MachineClaim;
let socket: ControlSocket;
let control: MachineControl;
let machine: FakeControlled;
let ga: FakeQemuGa;
let remote: RemoteMachine;
let folder: string;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vivarium-qemu-agent-'));
  place = ownPlace();
  claim = await claimName('box', { host: 'native' }, place);
  ga = new FakeQemuGa();
  machine = new FakeControlled('box', undefined, ga);
  control = new MachineControl(machine, { record: claim.record });
  socket = await listenFor(claim, (stream) => control.accept(stream));
  remote = await connect('box', { place });
});
afterEach(async () => {
  const closed = socket.close();
  await control.close({ reason: 'killed' });
  await closed;
  claim.release();
  place.done();
  rmSync(folder, { recursive: true });
});

async function run(options: Parameters<RemoteMachine['run']>[0]) {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const texts = [stdout, stderr].map(async (stream) => {
    let text = '';
    for await (const chunk of stream) text += (chunk as Buffer).toString('latin1');
    return text;
  });
  const end = await remote.run({ ...options, stdout, stderr }).finally(() => (stdout.end(), stderr.end()));
  const [out, err] = await Promise.all(texts);
  return { ...end, out, err };
}

/** Commands of the guest are run here, with what is behind setsid(1). */
function runHere(): void {
  const ends = new Map<FakeRequest, { exitcode: number; out: string; err: string } | undefined>();
  ga.exit = (argv, request) => {
    if (!ends.has(request)) {
      ends.set(request, undefined);
      const child = spawn(argv[2]!, argv.slice(3), { cwd: folder });
      const texts = [child.stdout, child.stderr].map((stream) => {
        const chunks: Buffer[] = [];
        stream.on('data', (chunk: Buffer) => chunks.push(chunk));
        return chunks;
      });
      // What reads nothing may be gone before it is given anything.
      child.stdin.on('error', () => undefined);
      child.stdin.end(Buffer.from((request.arguments?.['input-data'] ?? '') as string, 'base64'));
      child.on('close', (code) => {
        const [out, err] = texts.map((chunks) => Buffer.concat(chunks).toString('latin1'));
        ends.set(request, { exitcode: code ?? 1, out: out!, err: err! });
      });
    }
    const end = ends.get(request);
    return (
      end && {
        exitcode: end.exitcode,
        more: {
          'out-data': Buffer.from(end.out, 'latin1').toString('base64'),
          'err-data': Buffer.from(end.err, 'latin1').toString('base64'),
        },
      }
    );
  };
}

describe('which agent it is', () => {
  it("is told: none, QEMU's, and vivarium's own as soon as it has answered", async () => {
    const { agent, agentKind } = await remote.summary();
    expect([agent, agentKind]).toEqual([false, undefined]);
    ga.open();
    await expect.poll(async () => (await remote.summary()).agentKind).toBe('qemu');
    expect(await remote.inspect()).toMatchObject({ agent: { kind: 'qemu', version: '7.2.0' } });
    machine.agent.boot();
    await expect.poll(async () => (await remote.summary()).agentKind).toBe('vivarium');
    expect((await remote.summary()).agent).toBe(true);
    expect(await remote.inspect()).toMatchObject({ agent: { kind: 'vivarium' } });
  });
});

describe('exec', () => {
  it('waits for whichever answers, and gives the command to it', async () => {
    ga.exit = () => ({ exitcode: 3, out: 'out', err: 'err' });
    const result = run({ argv: ['ls', '-l'], env: { A: 'b' }, stdin: Readable.from([Buffer.from('in')]) });
    await new Promise((resolve) => setImmediate(resolve));
    ga.open();
    expect(await result).toMatchObject({
      status: { kind: 'exited', code: 3 },
      out: 'out',
      err: 'err',
      timedOut: false,
    });
    expect(ga.argvs).toEqual([['setsid', '--', 'ls', '-l']]);
    expect(machine.agent.processes.size).toBe(0);
  });

  it('says what such an agent has no way for, with a cure', async () => {
    ga.open();
    await expect(run({ argv: ['sh'], terminal: { columns: 80, rows: 24 } })).rejects.toMatchObject({
      code: 'ERR_AGENT',
      message: "QEMU's agent gives a command no terminal",
      cure: expect.stringMatching(/leave -t out/) as string,
    });
    const stdin = Readable.from(Array.from({ length: 9 }, () => Buffer.alloc(1024 * 1024)));
    await expect(run({ argv: ['cat'], stdin })).rejects.toMatchObject({
      code: 'ERR_AGENT',
      message: expect.stringMatching(/can't be streamed/) as string,
    });
    ga.exit = () => ({ exitcode: 0, out: 'some', more: { 'out-truncated': true } });
    await expect(run({ argv: ['yes'] })).rejects.toMatchObject({
      code: 'ERR_AGENT',
      message: expect.stringMatching(/more than 16777216 bytes/) as string,
    });
    ga.close();
    ga.blocked.add('guest-exec');
    ga.open();
    await expect(run({ argv: ['true'] })).rejects.toMatchObject({
      message: expect.stringMatching(/does not allow guest-exec/) as string,
    });
  });

  it('kills what takes too long, by a command in the guest', async () => {
    let killed = false;
    ga.exit = (argv) => {
      if (argv.includes('sleep')) return killed ? { signal: 9 } : undefined;
      killed = true;
      return { exitcode: 0 };
    };
    ga.open();
    expect(await run({ argv: ['sleep', '9'], timeoutMs: 50 })).toMatchObject({
      status: { kind: 'signalled', signal: 9 },
      timedOut: true,
    });
  });

  it('says that none has answered, where both could', async () => {
    await expect(remote.run({ argv: ['x'], waitMs: 5 })).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      cure: undefined,
    });
  });

  it('ends with the guest', async () => {
    ga.exit = () => undefined;
    ga.open();
    const result = run({ argv: ['sleep', '9'] });
    const failed = expect(result).rejects.toMatchObject({ code: 'ERR_AGENT', message: 'the guest has ended (crash)' });
    await expect.poll(() => ga.argvs.length).toBe(1);
    machine.end({ reason: 'crash' });
    await failed;
  });
});

describe('cp', () => {
  it('copies both ways, as much as fits at once', async () => {
    runHere();
    ga.open();
    const guest = join(folder, 'guest');
    const files = join(folder, 'files');
    mkdirSync(guest);
    mkdirSync(files);
    const bytes = Buffer.from(Uint8Array.from({ length: 300_000 }, (_, index) => index * 7));
    writeFileSync(join(files, 'data'), bytes);
    await remote.copyIn(files, `${guest}/`);
    expect(readFileSync(join(guest, 'files/data')).equals(bytes)).toBe(true);
    await remote.copyOut(join(guest, 'files'), join(folder, 'back'));
    expect(readFileSync(join(folder, 'back/data')).equals(bytes)).toBe(true);
  });

  it('says when something is too large, and does not wait for the rest of it', async () => {
    runHere();
    ga.open();
    writeFileSync(join(folder, 'large'), Buffer.alloc(12 * 1024 * 1024, 1));
    await expect(remote.copyIn(join(folder, 'large'), '/tmp/')).rejects.toMatchObject({
      code: 'ERR_AGENT',
      message: expect.stringMatching(/can't be streamed/) as string,
    });
  });
});

it('stop asks the agent too, which a guest that does not hear its power button does', async () => {
  machine.isDeaf = true;
  ga.open();
  await expect.poll(async () => (await remote.summary()).agentKind).toBe('qemu');
  ga.intercept = ({ execute }) => {
    if (execute === 'guest-shutdown') machine.end({ reason: 'poweroff' });
    return undefined;
  };
  const stopped = remote.stop();
  await expect.poll(() => ga.requests.at(-1)).toEqual({ execute: 'guest-shutdown', arguments: { mode: 'powerdown' } });
  await control.close({ reason: 'poweroff' });
  await stopped.catch(() => undefined);
  expect(machine.calls).toEqual(['stop']);
});

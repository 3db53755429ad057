/**
 * The client against qemu-ga itself, as Debian ships it, on this Linux: a UNIX socket in the place of the port in a guest. Commands that
 * would change this machine (its clock, its power) are blocked in it, and it is seen that the client knows.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isPromised } from '../../base/testing-promises.js';
import { QemuAgentClient } from './client.js';
import { encodeRequest } from './link.js';
import type { QemuAgentPort } from './port.js';

const PROGRAM = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin']
  .map((folder) => join(folder, 'qemu-ga'))
  .find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
const WITHOUT = 'qemu-ga is not installed (Debian: qemu-guest-agent; npm run setup installs it as root)';

const folder = mkdtempSync(join(tmpdir(), 'vivarium-qga-'));
const children: ChildProcess[] = [];
const sockets: Socket[] = [];
let count = 0;

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const child of children.splice(0)) child.kill('SIGKILL');
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A connection is what an open port is in a guest. */
class SocketPort implements QemuAgentPort {
  isOpen = true;
  onOpen: ((isOpen: boolean) => void) | undefined;
  onReceive: ((bytes: Uint8Array) => void) | undefined;
  readonly socket: Socket;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => undefined);
    socket.on('data', (bytes) => this.onReceive?.(bytes));
    socket.on('close', () => {
      this.isOpen = false;
      this.onOpen?.(false);
    });
  }

  send(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve) => this.socket.write(bytes.slice(), () => resolve()));
  }
}

interface Started {
  readonly child: ChildProcess;
  /** One after the other. */
  readonly connect: () => Promise<SocketPort>;
}

async function startAgent(...options: string[]): Promise<Started> {
  const path = join(folder, `s${++count}`);
  const places = ['-p', path, '-t', folder, '-f', join(folder, `pid${count}`)];
  const child = spawn(PROGRAM!, ['-m', 'unix-listen', ...places, ...options], { stdio: 'ignore', cwd: '/' });
  children.push(child);
  await expect.poll(() => existsSync(path), { timeout: 10_000 }).toBe(true);
  return {
    child,
    connect: async () => {
      const socket = connect(path);
      sockets.push(socket);
      await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
      return new SocketPort(socket);
    },
  };
}

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function connected(...options: string[]) {
  const agent = await startAgent(...options);
  const port = await agent.connect();
  const client = new QemuAgentClient(port);
  await client.ready({ timeoutMs: 10_000 });
  return { ...agent, port, client };
}

class Sink extends Writable {
  readonly chunks: Buffer[] = [];
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.chunks.push(Buffer.from(chunk));
    done();
  }
  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }
}

async function sh(client: QemuAgentClient, script: string, more: { cwd?: string; stdin?: Readable } = {}) {
  const [stdout, stderr] = [new Sink(), new Sink()];
  const { status } = await client.run({ argv: ['sh', '-c', script], stdout, stderr, ...more });
  return { status, out: stdout.bytes.toString('latin1'), err: stderr.bytes.toString('latin1') };
}

it('qemu-ga is there, where the run promises it', (context) => {
  if (PROGRAM === undefined && !isPromised('qemu-ga')) context.skip(WITHOUT);
  expect(PROGRAM).toBeDefined();
});

describe('qemu-ga', () => {
  beforeEach((context) => context.skip(PROGRAM === undefined, WITHOUT));

  it('says its version and what it allows', async () => {
    const { client } = await connected('-b', 'guest-set-time,guest-shutdown');
    expect(client.info?.version).toMatch(/^\d+\.\d+\.\d+/);
    expect([...client.info!.commands]).toEqual(expect.arrayContaining(['guest-exec', 'guest-exec-status']));
    await expect(client.requestPower('POWEROFF')).rejects.toThrow('does not allow guest-shutdown');
    await expect(client.setClock(() => Date.now())).rejects.toThrow('does not allow guest-set-time');
    expect(Math.abs((await client.readClock()) - Date.now())).toBeLessThan(60_000);
  });

  it('gets in step from the middle of a request, and of an answer that nobody took', async () => {
    const { connect: open } = await startAgent();
    const port = await open();
    await port.send(encodeRequest('guest-info'));
    await port.send(encodeRequest('guest-ping'));
    await port.send(Buffer.from('{"execute": "guest-exec", "arguments": {"path": "tr'));
    const client = new QemuAgentClient(port);
    await expect(client.ready({ timeoutMs: 10_000 })).resolves.toMatchObject({
      version: expect.stringMatching(/^\d/) as string,
    });
    await expect(sh(client, 'echo yes')).resolves.toMatchObject({ out: 'yes\n' });
  });

  it('runs commands with their input, variables and folder, binary clean', async () => {
    const { client } = await connected();
    const bytes = Uint8Array.from({ length: 100_000 }, (_, index) => index * 7);
    const { status, out, err } = await sh(client, 'pwd >&2; cat; echo $0 >&2; env >&2; exit 5', {
      cwd: folder,
      stdin: Readable.from([Buffer.from(bytes)]),
    });
    expect(status).toEqual({ kind: 'exited', code: 5 });
    expect(out).toBe(Buffer.from(bytes).toString('latin1'));
    expect(err.split('\n')).toEqual(expect.arrayContaining([folder, 'sh', 'HOME=/root', 'TERM=dumb']));
  });

  it('knows what is not there, and what a signal has ended', async () => {
    const { client } = await connected();
    await expect(sh(client, 'kill -11 $$')).resolves.toMatchObject({ status: { kind: 'signalled', signal: 11 } });
    // setsid(1) is there, and says it as a shell does.
    const stderr = new Sink();
    await expect(client.run({ argv: ['no-such-program'], stderr })).resolves.toMatchObject({
      status: { kind: 'exited', code: 127 },
    });
    expect(stderr.bytes.toString()).toContain('no-such-program');
  });

  it('sends a signal to the command and what it has started', async () => {
    const { client } = await connected();
    const mark = join(folder, `mark${count}`);
    // Its output stays open until the last of them has ended.
    const command = client.start({ argv: ['sh', '-c', `sleep 300 & sleep 300 & touch ${mark}; wait`] });
    await expect.poll(() => existsSync(mark), { timeout: 10_000 }).toBe(true);
    command.kill(15);
    await expect(command.result).resolves.toMatchObject({ status: { kind: 'signalled', signal: 15 } });
  });

  it('has a command killed that is left', async () => {
    const { client } = await connected();
    const file = join(folder, `pid-of-${count}`);
    const abort = new AbortController();
    const script = `echo $$ > ${file}.new; mv ${file}.new ${file}; sleep 300; :`;
    const result = client.run({ argv: ['sh', '-c', script], signal: abort.signal });
    await expect.poll(() => existsSync(file), { timeout: 10_000 }).toBe(true);
    const pid = Number(readFileSync(file, 'utf8'));
    expect(isThere(pid)).toBe(true);
    abort.abort();
    await expect(result).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect.poll(() => isThere(pid), { timeout: 10_000 }).toBe(false);
  });

  it('keeps 16 MiB of output, and that some is lost is an error', async () => {
    const { client } = await connected();
    const whole = await sh(client, 'head -c 16777215 /dev/zero');
    expect(whole.out).toHaveLength(16_777_215);
    const stdout = new Sink();
    const result = client.run({ argv: ['head', '-c', '17000000', '/dev/zero'], stdout });
    await expect(result).rejects.toMatchObject({
      code: 'ERR_AGENT',
      message: expect.stringMatching(/more than 16777216 bytes/) as string,
    });
    expect(stdout.bytes).toHaveLength(16_777_216);
    await expect(sh(client, 'echo next')).resolves.toMatchObject({ out: 'next\n' });
  });

  it('takes 8 MiB of input', async () => {
    const { client } = await connected();
    const stdin = Readable.from([Buffer.alloc(8 * 1024 * 1024, 'x')]);
    await expect(sh(client, 'wc -c', { stdin })).resolves.toMatchObject({ out: '8388608\n' });
  });

  it('that goes away ends what waits', async () => {
    const { client, child } = await connected();
    const mark = join(folder, `mark${count}`);
    const command = client.start({ argv: ['sh', '-c', `touch ${mark}; sleep 2`] });
    const failed = expect(command.result).rejects.toMatchObject({ code: 'ERR_AGENT' });
    await expect.poll(() => existsSync(mark), { timeout: 10_000 }).toBe(true);
    child.kill('SIGKILL');
    await failed;
    expect(client.info).toBeUndefined();
  });

  it('is as well without setsid', async () => {
    const { client, port } = await connected();
    // In a guest without it: here its name is made one that is not there.
    const send = port.send.bind(port);
    port.send = (bytes) =>
      send(Buffer.from(Buffer.from(bytes).toString('latin1').replace('"setsid"', '"setsxx"'), 'latin1'));
    await expect(sh(client, 'echo here')).resolves.toMatchObject({ out: 'here\n' });
    await expect(client.run({ argv: ['no-such-program'] })).resolves.toMatchObject({
      status: { kind: 'not-started', errno: 2 },
    });
    await expect(client.run({ argv: ['/etc'] })).resolves.toMatchObject({
      status: { kind: 'not-started', errno: 13 },
    });
    const command = client.start({ argv: ['sleep', '300'] });
    await expect(sh(client, 'echo started')).resolves.toMatchObject({ out: 'started\n' });
    command.kill(9);
    await expect(command.result).resolves.toMatchObject({ status: { kind: 'signalled', signal: 9 } });
  });
});

/**
 * The C agent itself, on this Linux: built with -DAGENT_STDIO and the sanitizers, its stdin and stdout in the place of
 * the guest channel. The same frames, the same loop, the same children as in a guest.
 */
import { execFileSync, spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { AgentClient, type AgentRunOptions } from './client.js';
import { FakeChannel } from './fake-agent.js';
import { encodeFrame, encodeResize, encodeStart, encodeWords, FrameType, HEADER_BYTES } from './protocol.js';

const folder = mkdtempSync(join(tmpdir(), 'vivarium-agent-'));
const program = join(folder, 'agent');
const sources = ['agent.c', 'clock.c'].map((name) => fileURLToPath(new URL(`../../guest/${name}`, import.meta.url)));
const running = new Set<ChildProcessWithoutNullStreams>();

beforeAll(() => {
  const flags = [
    '-g',
    '-O1',
    '-Wall',
    '-Wextra',
    '-Werror',
    '-fsanitize=address,undefined',
    '-fno-sanitize-recover=all',
  ];
  execFileSync('cc', [...flags, '-DAGENT_STDIO', '-o', program, ...sources]);
}, 60_000);

afterEach(() => {
  for (const child of running) child.kill('SIGKILL');
  running.clear();
});

afterAll(() => rmSync(folder, { recursive: true }));

interface Native {
  client: AgentClient;
  child: ChildProcessWithoutNullStreams;
  channel: FakeChannel;
  complaints: () => string;
  ended: Promise<number | null>;
}

function boot(env: NodeJS.ProcessEnv = {}): Native {
  const child = spawn(program, { env: { ...process.env, ...env } });
  running.add(child);
  const channel = new FakeChannel();
  const client = new AgentClient(channel);
  channel.onGuestBytes = (bytes) => void child.stdin.write(bytes);
  let complaints = '';
  child.stderr.on('data', (chunk: Buffer) => (complaints += chunk.toString()));
  child.stdin.on('error', () => undefined);
  child.stdout.on('data', (chunk: Buffer) => channel.fromGuest(chunk));
  const ended = new Promise<number | null>((resolve) => child.on('close', (code) => resolve(code)));
  channel.open();
  return { client, child, channel, complaints: () => complaints, ended };
}

class Digest extends Writable {
  readonly #hash = createHash('sha256');
  length = 0;
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#hash.update(chunk);
    this.length += chunk.length;
    setImmediate(done);
  }
  value(): string {
    return this.#hash.digest('hex');
  }
}

class Sink extends Writable {
  text = '';
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.text += chunk.toString('latin1');
    done();
  }
}

async function sh(client: AgentClient, script: string, more: Partial<AgentRunOptions> = {}) {
  const stdout = new Sink();
  const stderr = new Sink();
  const { status } = await client.run({ argv: ['/bin/sh', '-c', script], stdout, stderr, ...more });
  return { status, out: stdout.text, err: stderr.text };
}

describe('the agent', () => {
  it('greets, and runs a command with its own argv, env and cwd', async () => {
    const { client } = boot();
    expect(await client.ready()).toMatchObject({ sysname: 'Linux', machine: 'x86_64', agent: 'vivarium-agent 1' });
    const result = await sh(client, 'echo "$A|$#|$PWD"; echo no >&2; env | wc -l', {
      env: { A: 'x y', PATH: '/bin:/usr/bin' },
      cwd: '/tmp',
    });
    expect(result.status).toEqual({ kind: 'exited', code: 0 });
    expect(result.out).toMatch(/^x y\|0\|\/tmp\n\d+\n$/);
    expect(result.err).toBe('no\n');
  });

  it('greets with the notice that it was started with, cut to what fits, and keeps it to itself', async () => {
    const { client } = boot({ VIVARIUM_NOTICE: `no lease${'.'.repeat(300)}` });
    expect((await client.ready()).notice).toBe(`no lease${'.'.repeat(192)}`);
    expect((await sh(client, 'echo "$VIVARIUM_NOTICE"')).out).toBe('\n');
    expect((await boot().client.ready()).notice).toBe('');
  });

  it('passes on status and signal', async () => {
    const { client } = boot();
    await client.ready();
    expect((await sh(client, 'exit 7')).status).toEqual({ kind: 'exited', code: 7 });
    expect((await sh(client, 'exit 255')).status).toEqual({ kind: 'exited', code: 255 });
    expect((await sh(client, 'kill -TERM $$')).status).toEqual({ kind: 'signalled', signal: 15 });
  });

  it('tells a command that is not found from one that may not be executed', async () => {
    const { client } = boot();
    await client.ready();
    const plain = join(folder, 'plain');
    writeFileSync(plain, 'echo hi\n');
    chmodSync(plain, 0o644);
    const status = async (...argv: string[]) => (await client.run({ argv })).status;
    expect(await status('no-such-command')).toEqual({ kind: 'not-started', errno: 2 });
    expect(await status('/no/such')).toEqual({ kind: 'not-started', errno: 2 });
    expect(await status('')).toEqual({ kind: 'not-started', errno: 2 });
    expect(await status(plain)).toEqual({ kind: 'not-started', errno: 13 });
    expect(await status('/')).toEqual({ kind: 'not-started', errno: 13 });
    expect((await client.run({ argv: ['true'], cwd: '/no/such' })).status).toEqual({ kind: 'not-started', errno: 2 });
    expect(await status('true')).toEqual({ kind: 'exited', code: 0 });
  });

  it('carries 10 MB of binary through stdin and stdout', async () => {
    const { client } = boot();
    await client.ready();
    const data = randomBytes(10_000_000);
    const out = new Digest();
    const chunks = Array.from({ length: 100 }, (_, index) => data.subarray(index * 100_000, (index + 1) * 100_000));
    const { status } = await client.run({ argv: ['cat'], stdin: Readable.from(chunks), stdout: out });
    expect(status).toEqual({ kind: 'exited', code: 0 });
    expect(out.length).toBe(data.length);
    expect(out.value()).toBe(createHash('sha256').update(data).digest('hex'));
  });

  it('keeps stdout and stderr apart, both full', async () => {
    const { client } = boot();
    await client.ready();
    const result = await sh(client, 'head -c 2000000 /dev/zero; head -c 1000000 /dev/zero | tr "\\0" e >&2');
    expect([result.out.length, result.err.length]).toEqual([2_000_000, 1_000_000]);
    expect(/^e+$/.test(result.err)).toBe(true);
  });

  it('reports the end only after all output, also when a grandchild holds the pipe', async () => {
    const { client } = boot();
    await client.ready();
    const result = await sh(client, 'sleep 1000 & echo $!; head -c 200000 /dev/zero; exit 3');
    expect(result.status).toEqual({ kind: 'exited', code: 3 });
    const [pid = ''] = result.out.split('\n');
    expect(result.out.length).toBe(pid.length + 1 + 200_000);
    process.kill(Number(pid), 'SIGKILL');
  });

  it('gives end of file exactly, at once without stdin', async () => {
    const { client } = boot();
    await client.ready();
    expect((await sh(client, 'cat | wc -c')).out.trim()).toBe('0');
    const source = new PassThrough();
    const done = sh(client, 'read a; echo "$a"; cat; echo end', { stdin: source });
    source.write('one\n');
    source.end('two');
    expect((await done).out).toBe('one\ntwoend\n');
  });

  it('goes on when the command closes its stdin', async () => {
    const { client } = boot();
    await client.ready();
    const endless = new Readable({ read: (size) => void endless.push(Buffer.alloc(Math.min(size, 65536))) });
    const result = await sh(client, 'head -c 100000 >/dev/null; exec <&-; echo after', { stdin: endless });
    expect(result).toMatchObject({ status: { kind: 'exited', code: 0 }, out: 'after\n' });
    expect(endless.isPaused()).toBe(true);
  });

  it('ends a command by SIGPIPE when nobody takes its output', async () => {
    const { client } = boot();
    await client.ready();
    const broken = new Writable({ write: (_chunk, _encoding, done) => done(new Error('EPIPE')) });
    const result = await client.run({ argv: ['yes'], stdout: broken });
    expect(result.status).toEqual({ kind: 'signalled', signal: 13 });
    expect(result.outputError?.message).toBe('EPIPE');
  });

  it('signals the whole process group, which starts with default signals', async () => {
    const { client } = boot();
    await client.ready();
    const stdout = new PassThrough();
    const command = client.start({ argv: ['/bin/sh', '-c', 'sleep 1000 & echo ready; wait'], stdout });
    await new Promise((resolve) => stdout.once('data', resolve));
    command.kill(15);
    expect((await command.result).status).toEqual({ kind: 'signalled', signal: 15 });
    const masks = await sh(client, 'grep -E "^Sig(Blk|Ign):" /proc/self/status | cut -f2 | tr "\\n" " "');
    expect(masks.out).toBe('0000000000000000 0000000000000000 ');
  });

  it('gives children no descriptor but 0, 1 and 2, and leaves no zombie', async () => {
    const { client, child } = boot();
    await client.ready();
    for (let turn = 0; turn < 20; turn++) await sh(client, 'exit 0');
    expect((await sh(client, 'ls /proc/self/fd | tr "\\n" " "')).out).toBe('0 1 2 3 ');
    const zombies = execFileSync('sh', ['-c', `ps -o stat= --ppid ${child.pid} | grep -c Z || true`])
      .toString()
      .trim();
    expect(zombies).toBe('0');
  });

  it('runs many commands at once', async () => {
    const { client } = boot();
    await client.ready();
    const results = await Promise.all(
      Array.from({ length: 24 }, (_, index) =>
        sh(client, `head -c 100000 /dev/zero; cat; exit ${index}`, { stdin: Readable.from([Buffer.alloc(1000)]) }),
      ),
    );
    results.forEach((result, index) => {
      expect(result.status).toEqual({ kind: 'exited', code: index });
      expect(result.out).toHaveLength(101_000);
    });
  });

  it('is aborted without leaving the command behind', async () => {
    const { client } = boot();
    await client.ready();
    const abort = new AbortController();
    const stdout = new PassThrough();
    const command = client.start({ argv: ['sh', '-c', 'echo $$; sleep 1000'], stdout, signal: abort.signal });
    await new Promise((resolve) => stdout.once('data', resolve));
    abort.abort();
    await expect(command.result).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect((await sh(client, 'echo still here')).out).toBe('still here\n');
  });

  it('ends its commands before it powers off', async () => {
    const { client, ended } = boot();
    await client.ready();
    const stdout = new PassThrough();
    const command = client.start({
      argv: ['sh', '-c', 'trap "exit 5" TERM; echo ready; while :; do sleep 0.05; done'],
      stdout,
    });
    await new Promise((resolve) => stdout.once('data', resolve));
    client.requestPower('REBOOT');
    expect((await command.result).status).toEqual({ kind: 'exited', code: 5 });
    expect(await ended).toBe(11);
  });
});

describe('its clock', () => {
  it('is what the monotonic clock says here, and what the wall clock is set by', async () => {
    const { client, complaints } = boot();
    await client.ready();
    const before = process.hrtime.bigint();
    const said = (await client.readClock())!;
    const after = process.hrtime.bigint();
    expect(said).toBeGreaterThanOrEqual(before);
    expect(said).toBeLessThanOrEqual(after);
    client.setClock(1_000_000);
    // It was a minute ago that it was that.
    client.setClock(1_000_000, said - 60_000_000_000n);
    await expect.poll(() => complaints().match(/set clock \d+/g)?.length).toBe(2);
    const [plain, moved] = complaints()
      .match(/\d+/g)!
      .map((each) => Number(each) / 1e6);
    const sinceMs = Number(process.hrtime.bigint() - said) / 1e6;
    // Of the first the time between two readings at one place.
    expect(plain! - 1_000_000).toBeGreaterThanOrEqual(0);
    expect(plain! - 1_000_000).toBeLessThan(sinceMs);
    expect(moved! - 1_060_000).toBeGreaterThanOrEqual(0);
    expect(moved! - 1_060_000).toBeLessThan(sinceMs);
  });
});

describe('a host that breaks the rules', () => {
  it('with any frames does not crash the agent', async () => {
    const { client, channel, child, complaints, ended } = boot();
    await client.ready();
    client.close();
    const gone = { at: false };
    void ended.then(() => (gone.at = true));
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(
            fc.constantFrom(0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x09, 0x0a, 0x81, 0xff),
            fc.integer({ min: 0, max: 3 }),
            fc.uint8Array({ maxLength: 40 }),
          ),
        ),
        (frames) => {
          for (const [type, session, payload] of frames) channel.onGuestBytes?.(encodeFrame(type, session, payload));
        },
      ),
      { numRuns: 300 },
    );
    // Starts that almost parse: counts that lie, texts that are cut.
    const good = encodeStart(1, { argv: ['true', 'x'], env: { A: 'b' }, cwd: '/' });
    for (let at = HEADER_BYTES; at < good.length; at++) {
      channel.onGuestBytes?.(encodeFrame(FrameType.START, 100 + at, good.slice(HEADER_BYTES, at)));
      const bent = good.slice(HEADER_BYTES);
      bent[at - HEADER_BYTES] = 0xff;
      channel.onGuestBytes?.(encodeFrame(FrameType.START, 200 + at, bent));
    }
    const pong = new Promise((resolve) => {
      let seen = Buffer.alloc(0);
      child.stdout.on('data', (chunk: Buffer) => {
        seen = Buffer.concat([seen, chunk]);
        if (seen.includes('are you there')) resolve(undefined);
      });
    });
    channel.onGuestBytes?.(encodeFrame(FrameType.PING, 0, Buffer.from('are you there')));
    await Promise.race([pong, ended]);
    expect(gone.at, complaints()).toBe(false);
  });

  it.each([
    ['bytes out of step', Buffer.alloc(12)],
    ['a frame that is too long', encodeWords(FrameType.START, 1).fill(0xff, 0, 4)],
  ])('with %s is started over with', async (_name, bytes) => {
    const { client, channel, ended, complaints } = boot();
    await client.ready();
    channel.onGuestBytes?.(bytes);
    // Over stdin and stdout there is no opening again: the agent ends, with the status that stands for it.
    expect(await ended).toBe(3);
    expect(complaints()).toContain('starting over');
  });

  it('with more stdin than granted is started over with', async () => {
    const { client, channel, ended, complaints } = boot();
    await client.ready();
    const command = client.start({ argv: ['sleep', '1000'] });
    command.result.catch(() => undefined);
    channel.onGuestBytes?.(encodeStart(9, { argv: ['sleep', '1000'], env: { PATH: '/bin:/usr/bin' }, cwd: '/' }));
    for (let turn = 0; turn < 3; turn++)
      channel.onGuestBytes?.(encodeFrame(FrameType.STDIN, 9, new Uint8Array(400_000)));
    expect(await ended).toBe(3);
    expect(complaints()).toContain('more stdin than was granted');
  });
});

describe('a terminal', () => {
  it('is what the command has in place of pipes, with its size, its echo and its Ctrl-C', async () => {
    const { client } = boot();
    await client.ready();
    const [stdin, stdout, stderr] = [new PassThrough(), new Sink(), new Sink()];
    const script = `tty; stty size; trap 'stty size' WINCH; trap 'echo cut; exit 3' INT; echo ready
      while read -r line; do echo "got $line"; done; echo end`;
    const process = client.start({
      argv: ['/bin/bash', '-c', script],
      terminal: { columns: 100, rows: 30 },
      stdin,
      stdout,
      stderr,
    });
    await expect.poll(() => stdout.text).toContain('ready\r\n');
    expect(stdout.text).toMatch(/^\/dev\/pts\/\d+\r\n30 100\r\n/);
    stdin.write('hello\r');
    await expect.poll(() => stdout.text).toContain('hello\r\ngot hello\r\n');
    process.resize({ columns: 80, rows: 25 });
    stdin.write('x\r');
    await expect.poll(() => stdout.text).toContain('25 80\r\n');
    stdin.write('\x03');
    expect(await process.result).toMatchObject({ status: { kind: 'exited', code: 3 } });
    expect(stdout.text).toMatch(/\^C.*cut\r\n$/s);
    expect(stderr.text).toBe('');
  });

  it('has the end of stdin typed, and its last words are not lost', async () => {
    const { client } = boot();
    await client.ready();
    const stdin = new PassThrough();
    stdin.end('one\n');
    const script = 'stty -echo; cat; head -c 100000 /dev/zero | tr "\\\\0" x; echo; echo last';
    const { status, out } = await sh(client, script, { stdin, terminal: { columns: 80, rows: 24 } });
    expect(status).toEqual({ kind: 'exited', code: 0 });
    expect(out).toContain('one\r\n');
    expect(out.slice(-10)).toBe('xx\r\nlast\r\n');
    expect(out.replaceAll(/[^x]/g, '').length).toBe(100_000);
  });

  it('that its command has closed is not hung up: the command goes on', async () => {
    const { client } = boot();
    await client.ready();
    const [stdin, stdout, mark] = [new PassThrough(), new Sink(), join(folder, 'went-on')];
    const argv = ['/bin/sh', '-c', `echo on; exec < /dev/null > /dev/null 2>&1; sleep 0.2; : > ${mark}; sleep 100`];
    const process = client.start({ argv, stdin, stdout, terminal: { columns: 80, rows: 24 } });
    await expect.poll(() => existsSync(mark), { timeout: 10_000 }).toBe(true);
    expect(stdout.text).toBe('on\r\n');
    process.kill(9);
    expect(await process.result).toMatchObject({ status: { kind: 'signalled', signal: 9 } });
  });

  it('is refused in a size that no terminal has', () => {
    const { client } = boot();
    expect(() => encodeResize(1, { columns: 70_000, rows: 1 })).toThrow(RangeError);
    expect(client.guest).toBeUndefined();
  });
});

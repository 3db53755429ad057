import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { answering, type FakeProcess } from '../agent/fake-agent.js';
import { controlledBox, type ControlledBox } from './testing-control.js';
import { brokenPipe } from './fake-world.js';

let box: ControlledBox;
let play: (process: FakeProcess) => void;
const processes: FakeProcess[] = [];

beforeEach(async () => {
  processes.length = 0;
  box = await controlledBox((process) => {
    processes.push(process);
    play(process);
  });
  box.machine.agent.boot();
});
afterEach(() => box.close());

describe('read', () => {
  it('puts the bytes on stdout as they are', async () => {
    const bytes = Buffer.from([0, 10, 255, 0x1b]);
    play = answering(bytes);
    const { io, status } = box.start(['read', 'box:etc/x']);
    expect(await status).toBe(0);
    expect(io.collected.bytes.equals(bytes)).toBe(true);
    expect(processes[0]!.request.argv).toEqual(['cat', '/etc/x']);
  });

  it('fails with 125 and the reason, and as a writer does whose reader has gone', async () => {
    play = answering('', 'cat: /x: Permission denied', 1);
    expect(await box.main('read', 'box:/x')).toEqual({
      status: 125,
      out: '',
      err: 'vivarium: /x in the guest: permission denied\n',
    });
    play = answering('bytes');
    const { status } = box.start(['read', 'box:/x'], { stdout: brokenPipe() });
    expect(await status).toBe(141);
  });

  it('says when there is no agent', async () => {
    box.machine.channel.open();
    const { status, err } = await box.main('read', '--wait', '0.05', 'box:/x');
    expect({ status, err }).toEqual({ status: 125, err: expect.stringMatching(/no agent in the guest after 50 ms/) });
  });
});

describe('write', () => {
  beforeEach(() => {
    play = (process) => {
      process.grantStdin(1000);
      void process.until(() => process.stdinEnded).then(() => process.exit(0));
    };
  });

  it('makes a file of stdin', async () => {
    const { io, status } = box.start(['write', '--mode', '600', '--append', 'box:/x']);
    io.stdin.write('one ');
    io.stdin.end('two');
    expect(await status).toBe(0);
    expect(processes[0]!.stdin.toString()).toBe('one two');
    expect(processes[0]!.request.argv.slice(4)).toEqual(['/x', '0600', '0177', 'append']);
    expect(io.collected.text + io.stderr.text).toBe('');
  });

  it('refuses more than is taken, before the guest hears of it', async () => {
    const { io, status } = box.start(['write', 'box:/x']);
    io.stdin.end(Buffer.alloc(16 * 2 ** 20 + 1));
    expect(await status).toBe(125);
    expect(io.stderr.text).toBe('vivarium: write: at most 16777216 bytes; cp copies files of any size\n');
    expect(processes).toEqual([]);
  });

  it('is left by Ctrl-C, and nothing was written', async () => {
    const { io, status } = box.start(['write', 'box:/x']);
    io.stdin.write('half of');
    await expect.poll(() => io.stdin.readableLength).toBe(0);
    io.signal('SIGINT');
    expect(await status).toBe(130);
    expect(processes).toEqual([]);
  });
});

describe('list', () => {
  const told = Buffer.concat([
    Buffer.from('sub/41ed 4096 0\nkey/8180 12 1700000000\n\u001b[2J/a1ff 3 1\n'),
    Buffer.from([0xff]),
    Buffer.from('/11a4 0 2\n'),
  ]);

  it('prints for people, without what would steer their terminal', async () => {
    play = answering(told);
    const { status, out } = await box.main('list', 'box:');
    expect(status).toBe(0);
    expect(out.split('\n')).toEqual([
      'l0777  3     1970-01-01 00:00  ?[2J',
      '-0600  12    2023-11-14 22:13  key',
      'd0755  4096  1970-01-01 00:00  sub',
      'p0644  0     1970-01-01 00:00  \ufffd',
      '',
    ]);
    expect(processes[0]!.request.argv.slice(3)).toEqual(['list', '/']);
    play = answering('');
    expect(await box.main('list', 'box:/empty')).toEqual({ status: 0, out: '', err: '' });
  });

  it('prints for programs, with names of any bytes', async () => {
    play = answering(told);
    expect(JSON.parse((await box.main('list', '--json', 'box:/')).out)).toEqual([
      { name: '\u001b[2J', type: 'link', sizeBytes: 3, mode: 0o777, modifiedMs: 1000 },
      { name: 'key', type: 'file', sizeBytes: 12, mode: 0o600, modifiedMs: 1_700_000_000_000 },
      { name: 'sub', type: 'directory', sizeBytes: 4096, mode: 0o755, modifiedMs: 0 },
      { name: '\ufffd', nameBase64: '/w==', type: 'pipe', sizeBytes: 0, mode: 0o644, modifiedMs: 2000 },
    ]);
  });
});

describe('wait --port', () => {
  const HEAD = '  sl  local_address rem_address   st tx_queue\n';

  it('prints the addresses once there are some', async () => {
    play = answering(`${HEAD}   0: 00000000:1F90 00000000:0000 0A 0\n   1: 0100007F:1F90 00000000:0000 0A 0\n`);
    expect(await box.main('wait', '--port', '8080', 'box')).toEqual({
      status: 0,
      out: '0.0.0.0:8080\n127.0.0.1:8080\n',
      err: '',
    });
    const { out } = await box.main('wait', '--json', '--port', '8080', 'box');
    expect(JSON.parse(out)).toEqual({ port: 8080, addresses: ['0.0.0.0', '127.0.0.1'] });
  });

  it('gives up with 124, and fails with the guest', async () => {
    play = answering(HEAD);
    expect(await box.main('wait', '--port', '80', '--timeout', '0.05', 'box')).toEqual({
      status: 124,
      out: '',
      err: 'vivarium: nothing listens on TCP port 80 of the guest after 50 ms\n',
    });
    const waiting = box.main('wait', '--port', '80', 'box');
    await expect.poll(() => processes.length).toBeGreaterThan(1);
    box.machine.end({ reason: 'poweroff' });
    expect(await waiting).toEqual({ status: 125, out: '', err: 'vivarium: the guest has ended (poweroff)\n' });
  });
});

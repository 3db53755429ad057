/** `run` against a fake guest: how every end becomes a status, and what is said and given back on the way. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { VmmError } from '../base/errors.js';
import { brokenPipe, FakeIo, FakeWorld, type FakeMachine } from './fake-world.js';
import { runCommand } from './run-command.js';
import { parseRunOptions } from './run-options.js';
import { run, turns, until } from './testing-run.js';

const folder = mkdtempSync(join(tmpdir(), 'vivarium-run-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('--nic', () => {
  it('reaches the machine as it was chosen', async () => {
    const world = new FakeWorld((machine) => machine.end({ reason: 'poweroff' }));
    const { status } = run(world, { nic: ['switch:lan', 'tap:tap0,mac=02:00:00:00:00:01'] });
    expect(await status).toBe(0);
    expect(world.machine?.options.nics).toMatchObject([
      { id: 'net0', network: { kind: 'switch', name: 'lan' } },
      { id: 'net1', network: { kind: 'tap', name: 'tap0' }, mac: '02:00:00:00:00:01' },
    ]);
  });

  it('takes no channel of a user', async () => {
    const { io, status } = run(new FakeWorld(), { nic: ['carried:0'] });
    expect(await status).toBe(125);
    expect(io.stderr.text).toContain("--nic: 'carried' is none of tap:NAME, switch:NAME, passt");
  });
});

describe('the console', () => {
  it('is joined to the streams, and a guest that powers off gives 0', async () => {
    const world = new FakeWorld((machine) => {
      machine.print('login: ');
      void until(() => machine.typed.includes('root\n')).then(() => {
        machine.print('bye\r\n');
        machine.end({ reason: 'poweroff' });
      });
    });
    const { io, status } = run(world, { cpus: '2', memory: '64M' });
    io.stdin.write('root\n');
    expect(await status).toBe(0);
    expect(io.collected.text).toBe('login: bye\r\n');
    expect(world.machine?.calls).toEqual(['start', 'close']);
    expect(world.machine?.options).toMatchObject({
      cpus: 2,
      memoryBytes: 64 * 1024 * 1024,
      kernel: '/cache/vmlinuz',
      initrd: '/cache/initramfs.cpio',
      cmdline: 'console=ttyS0 panic=-1 quiet',
    });
    expect(io.stderr.text).toBe('');
  });

  it.each([
    ['reset', 0],
    ['halted', 0],
    ['crash', 126],
    ['panic', 126],
    ['failed', 125],
  ] as const)('gives for a guest that ends by %s %i', async (reason, expected) => {
    const world = new FakeWorld((machine) => machine.end({ reason, detail: 'rip=0x1234' }));
    const { io, status } = run(world);
    expect(await status).toBe(expected);
    expect(io.stderr.text.includes('rip=0x1234')).toBe(expected !== 0);
  });

  it('makes the terminal raw, knows its size, and gives it back', async () => {
    const world = new FakeWorld((machine) => machine.end({ reason: 'poweroff' }));
    const { io, status } = run(world, {}, { terminal: true });
    expect(await status).toBe(0);
    expect(io.rawModes).toEqual([true, false]);
    expect(world.machine?.options.cmdline).toBe('console=ttyS0 panic=-1 quiet vivarium.size=100x30');
  });

  it('is left by Ctrl-], after what was typed before it', async () => {
    const world = new FakeWorld();
    const { io, status } = run(world, {}, { terminal: true });
    io.stdin.write('abc\x1ddef');
    expect(await status).toBe(0);
    expect(world.machine?.typed).toBe('abc');
    expect(io.rawModes).toEqual([true, false]);
    expect(world.machine?.calls).toContain('close');
  });

  it('passes a Ctrl-] that does not come from a terminal', async () => {
    const world = new FakeWorld((machine) => {
      void until(() => machine.typed.length > 2).then(() => machine.end({ reason: 'poweroff' }));
    });
    const { io, status } = run(world);
    io.stdin.end('a\x1db');
    expect(await status).toBe(0);
    expect(world.machine?.typed).toBe('a\x1db');
  });

  it('types a stdin without end at the pace of the guest, and keeps none of it', async () => {
    const world = new FakeWorld((machine) => (machine.consoleIsFull = true));
    const io = new FakeIo();
    const status = runCommand(parseRunOptions({}, undefined), io, world);
    const chunk = Buffer.alloc(64 * 1024, 'y\n');
    await until(() => world.machine?.consoleIsFull === true);
    for (let count = 0; count < 64; count++) {
      io.stdin.write(chunk);
      await turns(1);
    }
    const machine = world.machine;
    expect(machine?.typed.length).toBe(4096);
    // A chunk is held here and one or two in the stream; the rest is whoever's that writes.
    expect(io.stdin.writableLength + io.stdin.readableLength).toBeGreaterThan(61 * chunk.length);
    machine?.drainConsole();
    await until(() => machine?.typed.length === 64 * chunk.length);
    expect(machine?.typed).toBe('y\n'.repeat(32 * chunk.length));
    machine?.end({ reason: 'poweroff' });
    expect(await status).toBe(0);
  });

  it('sees Ctrl-] on a terminal whose guest takes nothing, and says when it drops what is typed', async () => {
    const world = new FakeWorld((machine) => (machine.consoleIsFull = true));
    const { io, status } = run(world, {}, { terminal: true });
    await until(() => world.machine?.consoleIsFull === true);
    for (let count = 0; count < 40; count++) {
      io.stdin.write(Buffer.alloc(64 * 1024, 'y'));
      await turns(1);
    }
    expect(world.machine?.typed.length).toBe(4096);
    expect(io.stdin.readableLength).toBe(0);
    io.stdin.write('\x1d');
    expect(await status).toBe(0);
    expect(io.stderr.text.match(/what is typed now is dropped/g)).toHaveLength(1);
  });

  it('lives on when stdin ends or breaks', async () => {
    const world = new FakeWorld();
    const { io, status } = run(world);
    io.stdin.destroy(new Error('EIO'));
    await until(() => world.machine !== undefined);
    await turns();
    world.machine?.end({ reason: 'poweroff' });
    expect(await status).toBe(0);
  });

  it('ends quietly, as by SIGPIPE, when nobody reads stdout', async () => {
    const world = new FakeWorld((machine) => {
      machine.print('first');
      setImmediate(() => machine.print('second'));
    });
    const { io, status } = run(world, {}, { stdout: brokenPipe() });
    expect(await status).toBe(141);
    expect(io.stderr.text).toBe('');
    expect(world.machine?.calls).toContain('close');
  });
});

describe('a command', () => {
  const play = (act: (machine: FakeMachine) => void = () => undefined): FakeWorld =>
    new FakeWorld((machine) => {
      machine.print('[    0.1] the log of the kernel\r\n');
      machine.agent.boot();
      act(machine);
    });

  it('has stdin, stdout and stderr of its own, and its status', async () => {
    const world = play();
    world.onProcess = (process) => {
      process.grantStdin(1000);
      void process
        .until(() => process.stdinEnded)
        .then(() => {
          process.stdout(Buffer.concat([Buffer.from([0, 255, 13, 10]), process.stdin]));
          process.stderr('warn\n');
          process.exit(7);
        });
    };
    const { io, status } = run(world, {}, { command: ['sh', '-c', 'x'] });
    io.stdin.end(Buffer.from([1, 2, 0x1d]));
    expect(await status).toBe(7);
    expect([...io.collected.bytes]).toEqual([0, 255, 13, 10, 1, 2, 0x1d]);
    expect(io.stderr.text).toBe('warn\n');
    expect(world.machine?.options.cmdline).toBe('console=ttyS0 panic=-1 quiet vivarium.agent');
    expect(world.machine?.agent.processes.get(1)?.request.argv).toEqual(['sh', '-c', 'x']);
    expect(io.rawModes).toEqual([]);
  });

  it.each([
    ['a signal', 128 + 9, (p: { die(n: number): void }) => p.die(9)],
    ['ENOENT', 127, (p: { fail(n: number): void }) => p.fail(2)],
    ['EACCES', 126, (p: { fail(n: number): void }) => p.fail(13)],
    ['126 of its own', 126, (p: { exit(n: number): void }) => p.exit(126)],
  ])('that ends by %s gives %i', async (_name, expected, act) => {
    const world = play();
    world.onProcess = act;
    const { io, status } = run(world, { json: true }, { command: ['x'] });
    expect(await status).toBe(expected);
    expect(io.stderr.events.at(-1)).toMatchObject({ event: 'exit', status: expected, reason: 'command' });
  });

  it('in a guest that crashes gives 126 with the console and the report', async () => {
    const world = play((machine) => machine.end({ reason: 'panic', detail: 'Kernel panic - not syncing: test' }));
    const { io, status } = run(world, { quiet: true }, { command: ['x'] });
    expect(await status).toBe(126);
    expect(io.stderr.text).toContain('the log of the kernel');
    expect(io.stderr.text).toContain("the guest's kernel panicked: Kernel panic - not syncing: test");
    expect(io.collected.text).toBe('');
  });

  it('that powers the guest off gives 0 and says so', async () => {
    const world = play((machine) => machine.end({ reason: 'poweroff' }));
    const { io, status } = run(world, {}, { command: ['poweroff', '-f'] });
    expect(await status).toBe(0);
    expect(io.stderr.text).toBe('vivarium: the guest ended (poweroff) before the command did\n');
  });

  it('whose agent breaks its protocol gives 125', async () => {
    const world = play((machine) => setImmediate(() => machine.channel.fromGuest(Buffer.alloc(12))));
    const { io, status } = run(world, {}, { command: ['x'] });
    expect(await status).toBe(125);
    expect(io.stderr.text).toContain('broke its protocol');
  });

  it('whose output nobody reads ends as the guest ends it', async () => {
    const world = play();
    world.onProcess = (process) => {
      process.stdout('y\n');
      void process.until(() => process.closedOutputs.includes(1)).then(() => process.die(13));
    };
    const { status } = run(world, {}, { command: ['yes'], stdout: brokenPipe() });
    expect(await status).toBe(141);
  });
});

describe('failures', () => {
  it('of the machine give 125, the message and the cure', async () => {
    const world = new FakeWorld();
    world.createError = new VmmError('ERR_KVM_UNAVAILABLE', '/dev/kvm may not be opened', {
      cure: 'usermod -aG kvm me',
    });
    const { io, status } = run(world);
    expect(await status).toBe(125);
    expect(io.stderr.text).toBe('vivarium: /dev/kvm may not be opened\nvivarium: to cure it: usermod -aG kvm me\n');
    const json = run(world, { json: true });
    expect(await json.status).toBe(125);
    expect(json.io.stderr.events.map(({ event }) => event)).toEqual(['start', 'host', 'images', 'error', 'exit']);
    expect(json.io.stderr.events.at(-1)).toMatchObject({ status: 125, reason: 'failure' });
  });

  it('nobody foresaw bring their stack', async () => {
    const world = new FakeWorld();
    world.createError = new Error('surprise');
    const { io, status } = run(world);
    expect(await status).toBe(125);
    expect(io.stderr.text).toMatch(/a failure of vivarium's own: Error: surprise\n\s+at /);
  });

  it.each([
    ['missing', 'no-such', /--kernel no-such: there is no such file/],
    ['a directory', '.', /--kernel \.: is a directory/],
    ['empty', 'empty', /--kernel empty: is empty/],
    ['a device', '/dev/null', /--kernel \/dev\/null: is not a regular file/],
    ['larger than memory', 'large', /--kernel large: its 2 MiB do not fit into the guest's memory of 1 MiB/],
  ])('of a kernel that is %s name it before anything starts', async (_name, kernel, message) => {
    writeFileSync(join(folder, 'empty'), '');
    writeFileSync(join(folder, 'large'), Buffer.alloc(2 * 1024 * 1024));
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    const { io, status } = run(world, { kernel, memory: '1M' }, { cwd: folder });
    expect(await status).toBe(125);
    expect(io.stderr.text).toMatch(message);
    expect(world.forwarded).toEqual([]);
  });
});

describe('--pit', () => {
  it.each(['catch-up', 'reinject', 'discard'])('%s reaches the machine, here and in the embedded host', async (pit) => {
    const world = new FakeWorld((machine) => machine.end({ reason: 'poweroff' }));
    expect(await run(world, { pit }).status).toBe(0);
    expect(world.machine?.options.pit).toBe(pit);
    world.choice = { host: 'embedded', reason: 'no KVM' };
    expect(await run(world, { pit }).status).toBe(0);
    const argv = world.forwarded[0] ?? [];
    expect(argv[argv.indexOf('--pit') + 1]).toBe(pit);
  });

  it('is catch-up unless told otherwise', async () => {
    const world = new FakeWorld((machine) => machine.end({ reason: 'poweroff' }));
    await run(world).status;
    expect(world.machine?.options.pit).toBe('catch-up');
  });
});

describe('--qemu-agent', () => {
  it('reaches the machine, here and in the embedded host, and is not there by itself', async () => {
    const world = new FakeWorld((machine) => machine.end({ reason: 'poweroff' }));
    await run(world).status;
    expect(world.machine?.options.qemuAgent).toBe(false);
    await run(world, { qemuAgent: true }).status;
    expect(world.machine?.options.qemuAgent).toBe(true);
    world.choice = { host: 'embedded', reason: 'no KVM' };
    await run(world).status;
    await run(world, { qemuAgent: true }).status;
    expect(world.forwarded.map((argv) => argv.includes('--qemu-agent'))).toEqual([false, true]);
  });
});

describe('events', () => {
  it('tell the run in order, and whose status it is', async () => {
    const world = new FakeWorld((machine) => machine.agent.boot());
    world.onProcess = (process) => queueMicrotask(() => process.exit(124));
    const { io, status } = run(world, { json: true }, { command: ['x'] });
    expect(await status).toBe(124);
    expect(io.stderr.events.map(({ event }) => event)).toEqual([
      'start',
      'host',
      'images',
      'boot',
      'agent-ready',
      'exit',
    ]);
    expect(io.stderr.events.at(-1)).toMatchObject({
      status: 124,
      reason: 'command',
      child: { kind: 'exited', code: 124 },
    });
  });

  it('tell what the guest has to say before its command runs, quiet or not', async () => {
    const play = (options: { json?: boolean; quiet?: boolean }) => {
      const world = new FakeWorld((machine) => machine.agent.boot({ notice: 'eth0 has no address' }));
      world.onProcess = (process) => queueMicrotask(() => process.exit(0));
      return run(world, options, { command: ['x'] });
    };
    const [quiet, json] = [play({ quiet: true }), play({ json: true })];
    expect([await quiet.status, await json.status]).toEqual([0, 0]);
    expect(quiet.io.stderr.text).toBe('vivarium: the guest: eth0 has no address\n');
    expect(json.io.stderr.events).toContainEqual(
      expect.objectContaining({ event: 'guest-notice', notice: 'eth0 has no address' }),
    );
  });

  it('are progress for people at a terminal, coloured unless NO_COLOR is set', async () => {
    const play = (env: Record<string, string>) => {
      const world = new FakeWorld((machine) => machine.end({ reason: 'poweroff' }));
      return run(world, {}, { terminal: true, env });
    };
    const coloured = play({});
    await coloured.status;
    expect(coloured.io.stderr.text).toContain('\x1b[2mvivarium: using this machine');
    const plain = play({ NO_COLOR: '1' });
    await plain.status;
    expect(plain.io.stderr.text).toContain('vivarium: using this machine');
    expect(plain.io.stderr.text).not.toContain('\x1b[');
  });
});

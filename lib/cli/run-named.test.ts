/** `run --name` and `run -d`: who has the name, what is told of the end, what a process of its own is started with. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterAll, describe, expect, it } from 'vitest';
import { VmmError } from '../base/errors.js';
import { FakeIo, FakeWorld } from './fake-world.js';
import type { HolderProcess } from './detach-command.js';
import { Holder, type Underway } from './holder.js';
import { runMain } from './main-command.js';
import { run, turns, until } from './testing-run.js';

const folder = mkdtempSync(join(tmpdir(), 'vivarium-holder-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('run --name', () => {
  it('has the name while it runs, asks for the agent, and tells its end', async () => {
    let had: string[] = [];
    const world = new FakeWorld((machine) => {
      had = [...world.names.keys()];
      machine.end({ reason: 'poweroff' });
    });
    const { status } = run(world, { name: 'box' });
    expect(await status).toBe(0);
    expect(had).toEqual(['box']);
    expect(world.names.get('box')).toEqual({ status: 0, reason: 'poweroff' });
    expect(world.controlled).toEqual([{ status: 0, outcome: 'poweroff' }]);
    expect(world.machine?.options).toMatchObject({ name: 'box' });
    expect(world.machine?.options.cmdline).toMatch(/ vivarium\.agent=beside$/);
    expect(world.accept).toBeTypeOf('function');
  });

  it('does not ask for an agent in an initramfs of the user, nor without a name', async () => {
    const world = new FakeWorld((machine) => machine.end({ reason: 'poweroff' }));
    await run(world).status;
    expect(world.machine?.options.cmdline).not.toContain('agent');
    expect(world.machine?.options.name).toBeUndefined();
    expect(world.names.size).toBe(0);
  });

  it('shares the agent with its COMMAND, whose status it tells', async () => {
    const world = new FakeWorld((machine) => machine.agent.boot());
    world.onProcess = (process) =>
      queueMicrotask(() => {
        process.stdout('out');
        process.exit(3);
      });
    const { io, status } = run(world, { name: 'job' }, { command: ['work'] });
    expect(await status).toBe(3);
    expect(io.collected.text).toBe('out');
    expect(world.controlled).toEqual([{ status: 3, outcome: 'command' }]);
    expect(world.names.get('job')).toEqual({ status: 3, reason: 'command' });
  });

  it('is refused before anything is made when the name is taken', async () => {
    const world = new FakeWorld();
    world.names.set('box', undefined);
    const { io, status } = run(world, { name: 'box' });
    expect(await status).toBe(125);
    expect(io.stderr.text).toBe('vivarium: box is there already\n');
    expect(world.machine).toBeUndefined();
  });

  it('that somebody kills ends with 137, which is no failure', async () => {
    const world = new FakeWorld((machine) => void machine.kill());
    const { io, status } = run(world, { name: 'box' });
    expect(await status).toBe(137);
    expect(io.stderr.text).toBe('vivarium: the guest was killed\n');
  });

  it('in the embedded host keeps the name here, and gives the process inside a channel', async () => {
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    let had: string[] = [];
    world.onForward = () => {
      had = [...world.names.keys()];
      return Promise.resolve({ by: 'process', status: 7 });
    };
    const { status } = run(world, { name: 'box', nic: ['switch:lan'] });
    expect(await status).toBe(7);
    expect(had).toEqual(['box']);
    expect(world.names.get('box')).toEqual({ status: 7, reason: 'ended' });
    const control = world.forwarded[0]!.find((text) => text.startsWith('--control='))!;
    const record = { name: 'box', id: 'abc', pid: 7, host: 'embedded', since: 'now' };
    const told = { channel: 1, networks: 2, hasAgent: true, record };
    expect(JSON.parse(control.slice('--control='.length))).toEqual(told);
    expect([world.joined.length, world.lentOver]).toEqual([3, [world.joined[2]]]);
    expect(world.forwarded[0]).not.toContain('--name');
  });

  it('in the embedded host has no channel for networks where it has no nic, none at all without a name', async () => {
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    await run(world, { name: 'box' }).status;
    await run(world, { nic: ['switch:lan'] }).status;
    expect(world.forwarded[0]!.find((text) => text.startsWith('--control='))).toContain('{"channel":0,"hasAgent":true');
    expect(world.forwarded[1]!.some((text) => text.startsWith('--control='))).toBe(false);
    expect([world.joined.length, world.lentOver]).toEqual([2, []]);
  });

  it('in the embedded host is ended where it can not be reached and does not say why itself', async () => {
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    world.unreachable = new VmmError('ERR_CONTROL', 'box does not answer');
    let calls = 0;
    world.onForward = () => {
      calls++;
      return new Promise(() => undefined);
    };
    const { io, status } = run(world, { name: 'box', holder: true });
    await until(() => calls === 1);
    await turns();
    world.clock.advance(5_000_000_000n);
    expect(await status).toBe(125);
    expect(io.stderr.text).toContain('vivarium: box does not answer\n');
    expect(world.names.get('box')).toMatchObject({ status: 125, reason: 'failure' });
  });

  it('inside takes its connections from that channel', async () => {
    const world = new FakeWorld((machine) => machine.end({ reason: 'poweroff' }));
    world.inside = true;
    const record = { name: 'box', id: 'abc', pid: 7, host: 'embedded', since: 'now' };
    const control = JSON.stringify({ channel: 0, networks: 1, hasAgent: true, record });
    const [channel, networks] = [0, 1].map(() => ({ input: new PassThrough(), output: new PassThrough() }));
    const io = Object.assign(new FakeIo(), { channels: [channel!, networks!] });
    const kernel = join(folder, 'vmlinuz');
    writeFileSync(kernel, 'MZ');
    const argv = ['run', '--kernel', kernel, '--initrd', kernel, `--control=${control}`];
    const none = (): Promise<never> => Promise.reject(new Error('not asked for'));
    const worlds = { run: () => Promise.resolve(world), doctor: none, snapshots: none, control: none, dashboard: none };
    expect(await runMain(argv, io, worlds)).toBe(0);
    expect(world.carriedFrom).toBe(channel);
    expect(world.networksFrom).toBe(networks);
    expect(world.machine?.options).toMatchObject({ name: 'box' });
    expect(world.machine?.options.cmdline).toMatch(/ vivarium\.agent=beside$/);
    expect(world.names.size).toBe(0);
  });
});

describe('run -d', () => {
  const main = async (world: FakeWorld, ...argv: string[]) => {
    const io = new FakeIo();
    const none = (): Promise<never> => Promise.reject(new Error('not asked for'));
    const worlds = { run: () => Promise.resolve(world), doctor: none, snapshots: none, control: none, dashboard: none };
    return { status: await runMain(argv, io, worlds), out: io.collected.text, err: io.stderr.text };
  };

  it('prints the name when the machine runs', async () => {
    const world = new FakeWorld();
    expect(await main(world, 'run', '-d', '--name', 'box', '--cpus', '2')).toEqual({
      status: 0,
      out: 'box\n',
      err: '',
    });
    expect(world.started).toEqual([['run', '--holder', '--name', 'box', '-d', '--name', 'box', '--cpus', '2']]);
    expect(world.names.size).toBe(0);
    await main(world, 'run', '--detach', '--', 'sleep', '9');
    expect(world.started[1]).toEqual([
      'run',
      '--holder',
      '--name',
      expect.stringMatching(/^vm-[0-9a-f]{8}$/),
      '--detach',
      '--',
      'sleep',
      '9',
    ]);
  });

  it('is fenced in by what the machine stands on, and by what the user allows', async () => {
    const world = new FakeWorld();
    const disk = join(folder, 'disk.img');
    writeFileSync(disk, 'x');
    await main(
      world,
      'run',
      '-d',
      '--disk',
      disk,
      '--nic',
      'switch:lan',
      '--name',
      'box',
      '--allow-path',
      relative(new FakeIo().cwd, folder),
    );
    expect(world.fences[0]).toMatchObject({
      name: 'box',
      images: [{ path: disk, readOnly: false, format: 'raw' }],
      read: ['/cache/vmlinuz', '/cache/initramfs.cpio'],
      networks: { tap: false, switch: true, passt: false },
      allowed: [folder],
      cwd: new FakeIo().cwd,
    });
    expect(world.keptKernels).toEqual(['/cache/vmlinuz']);
    await main(world, 'run', '-d', '--no-fence');
    expect(world.fences[1]).toBe('none');
    world.choice = { host: 'embedded', reason: 'no KVM' };
    await main(world, 'run', '-d');
    expect(world.fences[2]).toBe('carries');
  });

  it('is not lent what a snapshot says that its guest is started from; the user is told, and may say so', async () => {
    const world = new FakeWorld();
    const kernel = join(folder, 'vmlinuz');
    world.described = { ...world.described, bootFiles: [kernel, '/boot/initrd.img', '/etc/\u001b[31mshadow'] };
    const { err } = await main(world, 'restore', '-d', '/saved');
    expect(err).toContain(`--allow-path ${kernel} --allow-path /etc/?[31mshadow`);
    expect(err).not.toContain('initrd.img');
    expect(world.fences[0]).toMatchObject({ read: ['/saved'] });
    world.described = { ...world.described, bootFiles: [kernel] };
    expect((await main(world, 'restore', '-d', '--allow-path', folder, '/saved')).err).not.toContain(kernel);
    expect(world.fences[1]).toMatchObject({ read: ['/saved'], allowed: [folder] });
  });

  it('refuses --allow-path where nothing is fenced, or nothing is', async () => {
    const world = new FakeWorld();
    expect((await main(world, 'run', '-d', '--allow-path', '/nowhere/x')).err).toContain(
      '--allow-path: there is no /nowhere/x',
    );
    expect((await main(world, 'run', '--allow-path', '/x')).err).toContain('--allow-path: only the process of -d');
    expect((await main(world, 'run', '-d', '--no-fence', '--allow-path', '/x')).err).toContain('--no-fence');
    expect(world.started).toEqual([]);
  });

  it('shows how far it has come', async () => {
    const world = new FakeWorld();
    const shown = (onProgress: (underway: Underway) => void): HolderProcess => {
      const progress = { bytesDone: 50, bytesTotal: 100, ratePerSecond: 0 };
      onProgress({ title: 'restore it', progress });
      return { ...new FakeWorld().onHolder(onProgress), unfenced: undefined };
    };
    world.onHolder = shown;
    expect(await main(world, 'run', '-d')).toEqual({ status: 0, out: 'box\n', err: 'vivarium: restore it 50 %\n' });
    expect((await main(world, 'run', '-d', '--json')).err).toContain('{"event":"progress","bytesDone":50,');
    expect((await main(world, 'run', '-d', '--quiet')).err).toBe('');
  });

  it('says why it does not run', async () => {
    const world = new FakeWorld();
    world.onHolder = () => ({
      ready: Promise.resolve(undefined),
      ended: Promise.resolve({ status: 126, stderr: 'vivarium: the guest crashed\n' }),
      kill: () => undefined,
      letGo: () => undefined,
    });
    expect(await main(world, 'run', '-d')).toEqual({ status: 126, out: '', err: 'vivarium: the guest crashed\n' });
  });

  it('ends what it has started when it is interrupted', async () => {
    const world = new FakeWorld();
    let killed = 0;
    let onEnded: () => void = () => undefined;
    const ended = new Promise<{ status: number; stderr: string }>((resolve) => {
      onEnded = () => resolve({ status: 143, stderr: '' });
    });
    world.onHolder = () => ({
      ready: new Promise(() => undefined),
      ended,
      kill: () => {
        killed++;
        onEnded();
      },
      letGo: () => undefined,
    });
    const { io, status } = run(world, { detach: true });
    await expect.poll(() => world.started.length).toBe(1);
    io.signal('SIGTERM');
    expect(await status).toBe(143);
    expect(killed).toBe(1);
  });
});

describe('Holder', () => {
  it('keeps output, logs to a bounded file, and tells that it is ready', async () => {
    const io = new FakeIo({ terminal: true });
    const [ready, log] = [join(folder, 'ready'), join(folder, 'log')];
    const readyFd = openSync(ready, 'w');
    const holder = new Holder(io, { hasCommand: true, readyFd });
    expect(holder.io.stdinIsTerminal || holder.io.stdoutIsTerminal || holder.io.stderrIsTerminal).toBe(false);
    holder.io.stderr.write('early\n');
    await holder.logTo(log);
    holder.io.stdout.write('out\n');
    const view = holder.progressView('restore it');
    const progress = { bytesDone: 1, bytesTotal: 3, ratePerSecond: 1 };
    for (const bytesDone of [1, 1.001, 2]) view.show({ ...progress, bytesDone });
    holder.ready({ name: 'box', id: 'abc', pid: 7 });
    view.show({ ...progress, bytesDone: 3 });
    expect(() => closeSync(readyFd)).toThrow();
    const lines = readFileSync(ready, 'utf8').trim().split('\n');
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      { title: 'restore it', progress },
      { title: 'restore it', progress: { ...progress, bytesDone: 2 } },
      { name: 'box', id: 'abc', pid: 7 },
    ]);
    holder.io.stderr.write('late\n');
    for (let at = 0; at < 40; at++) holder.io.stderr.write(Buffer.alloc(64 * 1024));
    await new Promise((resolve) => holder.io.stderr.write('', resolve));
    expect(io.stderr.text).toBe('early\n');
    const records = readFileSync(log, 'utf8').trim().split('\n');
    expect(records.length).toBeGreaterThan(2);
    expect(JSON.parse(records[0]!)).toEqual({ level: 30, time: expect.any(Number), pid: process.pid, msg: 'late' });
    expect(JSON.parse(records.at(-1)!)).toMatchObject({ level: 30 });
    expect(statSync(log).size).toBeLessThanOrEqual(1024 * 1024);
    const kept = Buffer.concat(holder.output.kept()).toString('latin1');
    expect(kept.length).toBe(1024 * 1024);
    expect(io.collected.text).toBe('');
  });

  it('makes a record of each line, and of an event with its members', async () => {
    const log = join(folder, 'events');
    const holder = new Holder(new FakeIo({}), { hasCommand: false });
    await holder.logTo(log);
    const text = Buffer.from(
      [
        'vivarium: größer\n',
        '{"event":"log","atMs":5,"level":"warn","message":"disk root: no space","dropped":3}\n',
        '{"event":"exit","atMs":6,"status":0}\n',
        '{"event":"error","atMs":7,"message":"broken","code":"ERR_STATE"}\n',
        '{"event":\n',
      ].join(''),
    );
    // In the middle of a line, and of a character.
    const cut = text.indexOf('ö') + 1;
    holder.io.stderr.write(text.subarray(0, cut));
    holder.io.stderr.write(text.subarray(cut));
    await new Promise((resolve) => holder.io.stderr.write('', resolve));
    const records = readFileSync(log, 'utf8').trim().split('\n');
    const plain = records.map((record) => {
      const { time: _time, pid: _pid, ...more } = JSON.parse(record) as Record<string, unknown>;
      return more;
    });
    expect(plain).toEqual([
      { level: 30, msg: 'vivarium: größer' },
      { level: 40, event: 'log', atMs: 5, dropped: 3, msg: 'disk root: no space' },
      { level: 30, event: 'exit', atMs: 6, status: 0, msg: 'exit' },
      { level: 50, event: 'error', atMs: 7, code: 'ERR_STATE', msg: 'broken' },
      { level: 30, msg: '{"event":' },
    ]);
  });
});

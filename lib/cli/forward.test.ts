/** `run` where this machine's KVM can't run Linux: what is forwarded, and how each end inside is told outside. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { VmmError } from '../base/errors.js';
import { FakeWorld } from './fake-world.js';
import { run, turns, until } from './testing-run.js';

const folder = mkdtempSync(join(tmpdir(), 'vivarium-run-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('the embedded host', () => {
  it('gets the whole command with paths of its own, and its status comes back', async () => {
    const kernel = join(folder, 'vmlinuz');
    writeFileSync(kernel, 'MZ');
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'this KVM lacks int3' };
    world.onForward = () => Promise.resolve({ by: 'process', status: 7 });
    const raw = { kernel, cpus: '2', memory: '128M', append: '-x=1', timeout: '60', quiet: false };
    const { io, status } = run(world, raw, { command: ['sh', '--', '-c'] });
    expect(await status).toBe(7);
    expect(io.stderr.text).toBe('vivarium: using the embedded KVM host: this KVM lacks int3\n');
    expect(world.forwarded).toEqual([
      [
        ...['run', '--kvm', 'native', '--kernel', `/host${kernel}`, '--initrd', '/host/cache/initramfs.cpio'],
        ...[
          '--cpus',
          '2',
          '--memory',
          '134217728',
          '--pit',
          'catch-up',
          '--stall-timeout',
          '300',
          '--append=-x=1',
          '--',
          'sh',
          '--',
          '-c',
        ],
      ],
    ]);
    expect(io.takesSignals).toBe(false);
  });

  it('gets nics at channels, whose networks are open here until it ends', async () => {
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    let open: string[] = [];
    world.onForward = () => {
      open = [...world.lent];
      return Promise.resolve({ by: 'process', status: 0 });
    };
    const { status } = run(world, { nic: ['switch:lan,id=lan,mtu=9000'], forward: ['8080:80'] });
    expect(await status).toBe(0);
    expect(open).toEqual(['lan', 'net1']);
    expect(world.lent).toEqual([]);
    expect(world.forwarded[0]).toEqual(
      expect.arrayContaining(['--nic=carried:0,id=lan,mtu=9000', '--nic=carried:1,id=net1']),
    );
  });

  it('is handed what disks and nics are limited to', async () => {
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    const disk = join(folder, 'limited.img');
    writeFileSync(disk, 'a disk');
    await run(world, { nic: ['switch:lan,bps=1K'], disk: [`${disk},ro,iops=9,bps=2K`] }).status;
    expect(world.forwarded[0]).toEqual(
      expect.arrayContaining([
        `--disk=/host${disk},format=raw,id=disk0,ro,bps=2048,iops=9`,
        '--nic=carried:0,id=net0,bps=1024',
      ]),
    );
  });

  it('is not asked for nics whose networks are not there', async () => {
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    world.lendError = new VmmError('ERR_DEVICE', 'tap tap0: no such interface', {
      cure: 'ip tuntap add tap0 mode tap',
    });
    const disk = join(folder, 'disk.img');
    writeFileSync(disk, 'a disk');
    const { io, status } = run(world, { nic: ['tap:tap0'], disk: [disk] });
    expect(await status).toBe(125);
    expect(io.stderr.text).toContain('tap tap0: no such interface');
    expect(world.forwarded).toEqual([]);
    expect(world.locked).toEqual([]);
  });

  it('is not asked for anything when the time is over before its networks are open', async () => {
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    const lend = world.lendNics.bind(world);
    world.lendNics = (nics) => {
      world.clock.advance(9_000_000_000n);
      return lend(nics);
    };
    const { status } = run(world, { timeout: '9', nic: ['switch:lan'] });
    expect(await status).toBe(124);
    expect([world.forwarded, world.lent]).toEqual([[], []]);
  });

  it('is silent with --quiet, one event with --json', async () => {
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    const quiet = run(world, { quiet: true });
    await quiet.status;
    expect(quiet.io.stderr.text).toBe('');
    const json = run(world, { json: true });
    await json.status;
    expect(json.io.stderr.events).toMatchObject([
      { event: 'start' },
      { event: 'host', host: 'embedded' },
      { event: 'images' },
    ]);
    expect(world.forwarded.at(-1)).toContain('--json');
  });

  it('is held to --timeout from outside, with time for last words', async () => {
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    const heard: string[] = [];
    world.onForward = (io) =>
      new Promise((resolve) => {
        io.onSignal((signal) => {
          heard.push(signal);
          resolve({ by: 'process', status: 131 });
        });
      });
    const { io, status } = run(world, { timeout: '9' });
    await until(() => world.forwarded.length > 0);
    world.clock.advance(9_000_000_000n);
    expect(await status).toBe(124);
    expect(heard).toEqual(['SIGQUIT']);
    expect(io.stderr.text).toContain('--timeout 9');
  });

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
    ['SIGQUIT', 131],
  ] as const)('that is ended by %s before the command runs in it gives %i, and says so', async (name, expected) => {
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    world.onForward = (io) => new Promise((resolve) => io.onSignal((signal) => resolve({ by: 'signal', signal })));
    const { io, status } = run(world, { json: true });
    await until(() => world.forwarded.length > 0);
    expect(io.takesSignals).toBe(true);
    io.signal(name);
    expect(await status).toBe(expected);
    expect(io.stderr.events.at(-1)).toMatchObject({ event: 'exit', status: expected, reason: 'signal', signal: name });
  });

  it('that is ended by SIGQUIT while the command runs tells the end, since the process inside does not', async () => {
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    world.onForward = (io) => new Promise((resolve) => io.onSignal(() => resolve({ by: 'process', status: 131 })));
    const { io, status } = run(world, { json: true });
    await until(() => world.forwarded.length > 0);
    io.signal('SIGQUIT');
    expect(await status).toBe(131);
    expect(io.stderr.events.at(-1)).toMatchObject({ event: 'exit', status: 131, reason: 'signal', signal: 'SIGQUIT' });
  });

  it('that does not react to the end of the time is left', async () => {
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    world.onForward = () => new Promise(() => undefined);
    const { status } = run(world, { timeout: '9' });
    await until(() => world.forwarded.length > 0);
    world.clock.advance(9_000_000_000n);
    await turns();
    world.clock.advance(5_000_000_000n);
    expect(await status).toBe(124);
  });

  it('inside, shows the console of a guest that was stuck, and leaves the end to the outer process', async () => {
    const world = new FakeWorld((machine) => machine.print('stuck here\r\n'));
    world.inside = true;
    const { io, status } = run(world, { json: true }, { command: ['x'] });
    await until(() => world.machine?.calls.includes('start') === true);
    await turns();
    io.signal('SIGQUIT');
    expect(await status).toBe(131);
    expect(io.stderr.events.map(({ event }) => event)).toEqual(['images', 'boot', 'console']);
  });

  it('that fails gives 125', async () => {
    const world = new FakeWorld();
    world.choice = { host: 'embedded', reason: 'no KVM' };
    world.onForward = () => Promise.reject(new VmmError('ERR_EMBEDDED_HOST', 'it went away'));
    const { io, status } = run(world);
    expect(await status).toBe(125);
    expect(io.stderr.text).toContain('it went away');
  });

  it('inside, says nothing of a choice', async () => {
    const world = new FakeWorld((machine) => machine.end({ reason: 'poweroff' }));
    world.inside = true;
    const { io, status } = run(world, { json: true });
    expect(await status).toBe(0);
    expect(io.stderr.events.map(({ event }) => event)).toEqual(['images', 'boot', 'exit']);
  });
});

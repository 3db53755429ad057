/** `vivarium restore` in a fake world: what it asks for, the console on this terminal, and the status. */
import { describe, expect, it } from 'vitest';
import { FrameType } from '../agent/protocol.js';
import { VmmError } from '../base/errors.js';
import { FakeIo, FakeWorld, type FakeIoOptions } from './fake-world.js';
import { formatNic } from './nic-option.js';
import { runMain } from './main-command.js';
import { until } from './testing-run.js';

function restore(world: FakeWorld, argv: string[], more: FakeIoOptions = {}) {
  const io = new FakeIo({ cwd: '/here', ...more });
  const status = runMain(['restore', ...argv], io, {
    run: () => Promise.resolve(world),
    doctor: () => Promise.reject(new Error('not asked for')),
    snapshots: () => Promise.reject(new Error('not asked for')),
    control: () => Promise.reject(new Error('not asked for')),
    dashboard: () => Promise.reject(new Error('not asked for')),
  });
  return { io, status };
}

it('goes on with the guest, its console here, and ends as it does', async () => {
  const world = new FakeWorld((machine) => {
    machine.print('as before\n');
    machine.end({ reason: 'poweroff' });
  });
  const { io, status } = restore(world, ['ready', '--memory', 'eager', '--clock', 'catch-up', '--name', 'two']);
  expect(await status).toBe(0);
  expect(io.collected.text).toBe('as before\n');
  expect(world.restored).toMatchObject([
    { dir: '/here/ready', options: { memory: 'eager', clock: 'catch-up', name: 'two', start: false } },
  ]);
  expect(world.machine?.calls).toEqual(['start', 'close']);
});

it('shows how far the memory is', async () => {
  const world = new FakeWorld((machine) => machine.end({ reason: 'halted' }));
  const { io, status } = restore(world, ['--json', 'ready']);
  expect(await status).toBe(0);
  expect(io.stderr.events).toMatchObject([
    { event: 'start', path: '/here/ready' },
    { event: 'host', host: 'native' },
    { event: 'restored', path: '/here/ready' },
    { event: 'exit', status: 0, reason: 'halted' },
  ]);
  const { onProgress } = world.restored[0]!.options;
  onProgress?.({ bytesDone: 1, bytesTotal: 2, ratePerSecond: 1 });
  expect(io.stderr.events.at(-1)).toMatchObject({ event: 'progress', bytesDone: 1 });
});

it('ends with 124 when the time is over, and says which', async () => {
  const world = new FakeWorld();
  const { io, status } = restore(world, ['--timeout', '5', 'ready']);
  await until(() => world.machine?.calls.includes('start') === true);
  world.clock.advance(5_000_000_000n);
  expect(await status).toBe(124);
  expect(io.stderr.text).toContain('--timeout 5: the time is over');
});

it('is left by Ctrl-], and the terminal is given back', async () => {
  const world = new FakeWorld();
  const { io, status } = restore(world, ['ready'], { terminal: true });
  await until(() => world.machine?.calls.includes('start') === true);
  io.stdin.write(Uint8Array.of(0x68, 0x69, 0x1d));
  expect(await status).toBe(0);
  expect(world.machine?.typed).toBe('hi');
  expect(io.rawModes).toEqual([true, false]);
});

it('says why it can not', async () => {
  const world = new FakeWorld();
  world.createError = new VmmError('ERR_SNAPSHOT_HOST', 'the guest needs avx512f', { cure: 'mask it' });
  const { io, status } = restore(world, ['ready']);
  expect(await status).toBe(125);
  expect(io.stderr.text).toBe('vivarium: the guest needs avx512f\nvivarium: to cure it: mask it\n');
});

describe('inside the embedded host', () => {
  const embedded = (): FakeWorld => {
    const world = new FakeWorld((machine) => machine.end({ reason: 'halted' }));
    world.choice = { host: 'embedded', reason: 'no KVM' };
    world.onForward = () => Promise.resolve({ by: 'process', status: 3 });
    return world;
  };

  it('gets the same command with paths of its own, and its nics at channels', async () => {
    const world = embedded();
    const nics = [
      { id: 'net0', backend: { kind: 'switch', name: 'lan' } },
      { id: 'net1', backend: { kind: 'passt', forwards: '', hostLoopback: true, mtuBytes: 9000 } },
      { id: 'net2', backend: { kind: 'passt', forwards: '8080:80', hostLoopback: true, mtuBytes: 1500 } },
      { id: 'net3', backend: { kind: 'tap', name: 'tap0' } },
      { id: 'net4', backend: { kind: 'switch', name: 'wide', mtuBytes: 9000, links: 1 } },
    ];
    world.described = { ...world.described, nics };
    const argv = ['ready', '--memory', 'eager', '--clock', 'freeze', '--nic', 'passt,id=net2', '-p', '8081:80'];
    expect(await restore(world, argv).status).toBe(3);
    expect(world.lentChoices.map(formatNic)).toEqual([
      ...['switch:lan,id=net0', 'passt,id=net1,mtu=9000', 'passt:8081:80,id=net2', 'tap:tap0,id=net3'],
      'switch:wide,id=net4,mtu=9000',
    ]);
    expect(world.forwarded).toEqual([
      [
        ...['restore', '--kvm', 'native', '--memory', 'eager', '--clock', 'freeze'],
        ...['--nic=carried:0,id=net0', '--nic=carried:1,id=net1,mtu=9000', '--nic=carried:2,id=net2'],
        ...['--nic=carried:3,id=net3', '--nic=carried:4,id=net4,mtu=9000', '/host/here/ready'],
      ],
    ]);
  });

  it('holds the images of the snapshot meanwhile, but for those that the saved machine holds still', async () => {
    const world = embedded();
    const image = (path: string) => ({ id: path, path, format: 'raw' as const, isCut: true });
    world.described = { ...world.described, images: [image('/free.img'), image('/held.img')] };
    world.held.add('/held.img');
    let locked: string[] = [];
    world.onForward = () => {
      locked = [...world.locked];
      return Promise.resolve({ by: 'process', status: 0 });
    };
    expect(await restore(world, ['ready']).status).toBe(0);
    expect(locked).toEqual(['/free.img']);
    expect(world.locked).toEqual([]);
  });

  it('is not asked for a guest that is no Linux, unless it is wished for', async () => {
    const world = embedded();
    world.described = { ...world.described, kind: 'flat' };
    expect(await restore(world, ['ready']).status).toBe(0);
    expect(world.forwarded).toEqual([]);
    expect(await restore(world, ['--kvm', 'embedded', 'ready']).status).toBe(3);
  });

  it.each([
    [{ kind: 'passt', forwards: '8080:80', hostLoopback: true, mtuBytes: 1500 }, "the nic 'net0' stood on 'passt'"],
    [{ kind: 'passt', forwards: '', hostLoopback: false, mtuBytes: 1500 }, "the nic 'net0' stood on 'passt'"],
    [{ kind: 'callback' }, "the nic 'net0' stood on 'callback'"],
    [{ kind: 'switch', name: 'a,id=b' }, "the nic 'net0' stood on 'switch'"],
    [{ kind: 'tap', name: '../x' }, "the nic 'net0' stood on 'tap'"],
    [{ kind: 'passt', forwards: '', hostLoopback: true, mtuBytes: 7 }, "the nic 'net0' stood on 'passt'"],
  ])('a nic on %j is refused before anything is opened', async (backend, message) => {
    const world = embedded();
    world.described = { ...world.described, nics: [{ id: 'net0', backend }] };
    const { io, status } = restore(world, ['ready']);
    expect(await status).toBe(125);
    expect(io.stderr.text).toMatch(new RegExp(message));
    expect([world.forwarded, world.lentChoices]).toEqual([[], []]);
  });
});

it('is reached by its name while it runs, and is told that it is a clone', async () => {
  const world = new FakeWorld((machine) => machine.agent.boot());
  const { status } = restore(world, ['--name', 'two', 'ready']);
  await until(() => world.machine?.calls.includes('start') === true);
  expect([...world.names.keys()]).toEqual(['two']);
  const told = (): number[] => world.machine!.agent.controls.map(({ type }) => type);
  await until(() => told().length === 2);
  // The agent sets the calendar, so that no other clock of the guest jumps.
  expect(told()).toEqual([FrameType.RESEED, FrameType.SET_CLOCK]);
  expect(world.restored[0]!.options.clock).toBe('freeze');
  world.machine!.end({ reason: 'poweroff' });
  expect(await status).toBe(0);
  expect(world.controlled).toEqual([{ status: 0, outcome: 'poweroff' }]);
  expect(world.names.get('two')).toMatchObject({ status: 0, reason: 'poweroff' });
});

it.each([
  ['none, and has one now', [], false, undefined, [FrameType.RESEED, FrameType.SET_CLOCK]],
  ['one, and is to stand still', ['--clock', 'freeze'], true, 'freeze', [FrameType.RESEED]],
  ['one, and is owed its ticks', ['--clock', 'catch-up'], true, 'catch-up', [FrameType.RESEED]],
])('has its clocks as asked for where its guest had an agent: %s', async (_what, argv, hasAgent, clock, frames) => {
  const world = new FakeWorld((machine) => machine.agent.boot());
  world.described = { ...world.described, hasAgent };
  const { status } = restore(world, [...argv, 'ready']);
  const told = (): number[] => world.machine?.agent.controls.map(({ type }) => type) ?? [];
  await until(() => told().length === frames.length);
  world.machine!.end({ reason: 'poweroff' });
  expect(await status).toBe(0);
  expect(told()).toEqual(frames);
  expect(world.restored[0]!.options.clock).toBe(clock);
});

it('warns when the agent that is to set the calendar does not answer', async () => {
  const world = new FakeWorld();
  const { io, status } = restore(world, ['ready']);
  await until(() => {
    if (world.machine?.calls.includes('start') === true) world.clock.advance(60_000_000_000n);
    return io.stderr.text.includes('its calendar stands where the snapshot was taken');
  });
  world.machine!.end({ reason: 'poweroff' });
  expect(await status).toBe(0);
});

it('gets a process of its own with -d', async () => {
  const world = new FakeWorld();
  const { io, status } = restore(world, ['-d', '--name', 'two', 'ready']);
  expect(await status).toBe(0);
  expect(world.started).toEqual([['restore', '--holder', '--name', 'two', '-d', '--name', 'two', 'ready']]);
  expect(io.collected.text).not.toBe('');
});

it.each([
  [['--memory', 'some', 'a'], "--memory: 'some' is none of lazy, eager"],
  [['--clock', 'now', 'a'], "--clock: 'now' is none of freeze, step, catch-up"],
  [['--nic', 'switch:lan,mac=02:00:00:00:00:01', 'a'], "--nic: the guest's 'net0' has the address that it had"],
  [['--nic', 'switch:lan,bps=1M', 'a'], "--nic: the guest's 'net0' has the limits that it had"],
  [['--nic', 'switch:lan,id=lan', 'a'], "--nic: the snapshot has no nic 'lan'; it has none"],
  [[''], 'restore: the folder of a snapshot is wanted'],
  [[], "missing required argument 'dir'; vivarium restore --help tells more"],
  [['a', 'b'], 'restore: too many arguments; vivarium restore --help tells more'],
])('refuses %j', async (argv, message) => {
  const { io, status } = restore(new FakeWorld(), argv);
  expect(await status).toBe(125);
  expect(io.stderr.text).toBe(`vivarium: ${message}\n`);
});

/** `vivarium restore` in a fake world: what it asks for, the console on this terminal, and the status. */
import { expect, it } from 'vitest';
import { VmmError } from '../base/errors.js';
import { FakeIo, FakeWorld, type FakeIoOptions } from './fake-world.js';
import { runMain } from './main-command.js';
import { until } from './testing-run.js';

function restore(world: FakeWorld, argv: string[], more: FakeIoOptions = {}) {
  const io = new FakeIo({ cwd: '/here', ...more });
  const status = runMain(['restore', ...argv], io, {
    run: () => Promise.resolve(world),
    doctor: () => Promise.reject(new Error('not asked for')),
    snapshots: () => Promise.reject(new Error('not asked for')),
    control: () => Promise.reject(new Error('not asked for')),
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
    { event: 'restored', path: '/here/ready' },
    { event: 'exit', status: 0, reason: 'halted' },
  ]);
  const { onProgress } = world.restored[0]!.options;
  onProgress?.({ bytesDone: 1, bytesTotal: 2, ratePerSecond: 1 });
  expect(io.stderr.events.at(-1)).toMatchObject({ event: 'progress', bytesDone: 1 });
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

it.each([
  [['--memory', 'some', 'a'], "--memory: 'some' is none of lazy, eager"],
  [['--clock', 'now', 'a'], "--clock: 'now' is none of freeze, step, catch-up"],
  [[''], 'restore: the folder of a snapshot is wanted'],
  [[], "missing required argument 'dir'; vivarium restore --help tells more"],
  [['a', 'b'], 'restore: too many arguments; vivarium restore --help tells more'],
])('refuses %j', async (argv, message) => {
  const { io, status } = restore(new FakeWorld(), argv);
  expect(await status).toBe(125);
  expect(io.stderr.text).toBe(`vivarium: ${message}\n`);
});

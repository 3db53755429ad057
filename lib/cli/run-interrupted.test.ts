/** `run` that is ended from outside: by its time limit, its watchdog, or a signal. */
import { describe, expect, it } from 'vitest';
import { FakeWorld } from './fake-world.js';
import { run, turns, until } from './testing-run.js';

describe('--timeout', () => {
  it('gives 124, with the console of a guest that never came up', async () => {
    const world = new FakeWorld((machine) => machine.print('stuck here\r\n'));
    const { io, status } = run(world, { timeout: '2.5' }, { command: ['x'] });
    await until(() => world.machine?.calls.includes('start') === true);
    await turns();
    world.clock.advance(2_500_000_000n);
    expect(await status).toBe(124);
    expect(io.stderr.text).toContain('stuck here');
    expect(io.stderr.text).toContain('--timeout 2.5: the time is over');
    expect(world.machine?.calls).toContain('close');
  });

  it('gives 124 at the console too, and gives the terminal back', async () => {
    const world = new FakeWorld();
    const { io, status } = run(world, { timeout: '1' }, { terminal: true });
    await until(() => world.machine?.calls.includes('start') === true);
    world.clock.advance(1_000_000_000n);
    expect(await status).toBe(124);
    expect(io.rawModes).toEqual([true, false]);
  });
});

describe('a guest without a sign of life', () => {
  const MINUTE_NS = 60_000_000_000n;
  const started = (world: FakeWorld) => until(() => world.machine?.calls.includes('start') === true);

  it('is ended with 126 when its agent never comes, with its console and its CPUs', async () => {
    const world = new FakeWorld((machine) => machine.print('[    0.1] the last line\r\n'));
    const { io, status } = run(world, { json: true }, { command: ['x'] });
    await started(world);
    await turns();
    world.clock.advance(4n * MINUTE_NS);
    world.machine?.print('.');
    await turns();
    world.clock.advance(4n * MINUTE_NS);
    await turns();
    expect(world.machine?.calls).toEqual(['start']);
    world.clock.advance(2n * MINUTE_NS);
    expect(await status).toBe(126);
    expect(world.machine?.calls).toEqual(['start', 'pause', 'close']);
    expect(io.stderr.events.slice(-3)).toMatchObject([
      { event: 'console', text: '[    0.1] the last line\r\n.' },
      { event: 'stalled', seconds: 300, cpus: [{ id: 0, rip: '0x1234', interruptsOn: false }] },
      { event: 'exit', status: 126, reason: 'stalled' },
    ]);
  });

  it('is ended when its CPUs cannot even be stopped, and says so to people', async () => {
    const world = new FakeWorld((machine) => (machine.pauseHangs = true));
    const { io, status } = run(world, { quiet: true, stallTimeout: '60' }, { command: ['x'] });
    await started(world);
    world.clock.advance(MINUTE_NS);
    await turns();
    world.clock.advance(5_000_000_000n);
    expect(await status).toBe(126);
    expect(io.stderr.text).toMatch(
      /^vivarium: the guest shows no sign of life: no word of its agent, no progress for 60 s \(--stall-timeout\); CPU 0 runs at rip 0x1234, interrupts off\n$/,
    );
  });

  it('is ended at the console too, but only before its first byte, and the terminal is given back', async () => {
    const silent = new FakeWorld();
    const { io, status } = run(silent, {}, { terminal: true });
    await started(silent);
    silent.clock.advance(6n * MINUTE_NS);
    expect(await status).toBe(126);
    expect(io.rawModes).toEqual([true, false]);

    const idle = new FakeWorld((machine) => machine.print('~ # '));
    const session = run(idle, {}, { terminal: true });
    await until(() => session.io.collected.text === '~ # ');
    idle.clock.advance(100_000n * MINUTE_NS);
    await turns();
    expect(idle.machine?.calls).toEqual(['start']);
    idle.machine?.end({ reason: 'poweroff' });
    expect(await session.status).toBe(0);
  });

  it('is let be with --stall-timeout 0, and so is a command that takes its time', async () => {
    const patient = new FakeWorld();
    const first = run(patient, { stallTimeout: '0' }, { command: ['x'] });
    const busy = new FakeWorld((machine) => machine.agent.boot());
    const second = run(busy, {}, { command: ['sleep', 'inf'] });
    for (const world of [patient, busy]) {
      await started(world);
      await turns();
      world.clock.advance(100_000n * MINUTE_NS);
      await turns();
      expect(world.machine?.calls).toEqual(['start']);
      world.machine?.end({ reason: 'poweroff' });
    }
    expect([await first.status, await second.status]).toEqual([0, 0]);
  });
});

describe('signals', () => {
  it('SIGINT first presses the power button; the status says which signal it was', async () => {
    const world = new FakeWorld((machine) => {
      machine.onPowerButton = () => machine.end({ reason: 'poweroff' });
    });
    const { io, status } = run(world);
    await until(() => world.machine?.calls.includes('start') === true);
    io.signal('SIGINT');
    expect(await status).toBe(130);
    expect(world.machine?.calls).toEqual(['start', 'stop', 'close']);
    expect(io.stderr.text).toContain('asked the guest to power off');
    expect(io.takesSignals).toBe(false);
  });

  it('SIGINT twice ends the run', async () => {
    const world = new FakeWorld();
    const { io, status } = run(world, { quiet: true });
    await until(() => world.machine?.calls.includes('start') === true);
    io.signal('SIGINT');
    io.signal('SIGINT');
    expect(await status).toBe(130);
    expect(io.stderr.text).toBe('');
  });

  it('SIGINT asks the agent to end the command and power off', async () => {
    const world = new FakeWorld((machine) => machine.agent.boot());
    const { io, status } = run(world, {}, { command: ['sleep'] });
    await until(() => world.machine?.agent.processes.size === 1);
    io.signal('SIGINT');
    const [control] = world.machine?.agent.controls ?? [];
    expect(control?.type).toBe(0x08);
    world.machine?.agent.processes.get(1)?.die(15);
    expect(await status).toBe(130);
  });

  it.each([
    ['SIGTERM', 143],
    ['SIGHUP', 129],
    ['SIGQUIT', 131],
  ] as const)('%s ends the run at once with %i and gives the terminal back', async (signal, expected) => {
    const world = new FakeWorld();
    const { io, status } = run(world, {}, { terminal: true });
    await until(() => world.machine?.calls.includes('start') === true);
    io.signal(signal);
    expect(await status).toBe(expected);
    expect(io.rawModes).toEqual([true, false]);
    expect(world.machine?.calls.at(-1)).toBe('close');
  });
});

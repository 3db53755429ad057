/** The ways in which a stock guest ends, and the status that each gives. */
import { describe, expect, it } from 'vitest';
import { events, start, vivarium } from '../lib/command.js';

describe('a guest ends', () => {
  it.each([
    ['poweroff -f', 'poweroff'],
    ['reboot -f', 'reset'],
    ['halt -f', 'halted'],
  ])('by %s with status 0', async (command, reason) => {
    const { status, stderr } = await vivarium(['run', '--json', '--', ...command.split(' ')]);
    const told = events(stderr);
    expect(told.at(-1), stderr).toMatchObject({ event: 'exit', status: 0, reason });
    expect(status).toBe(0);
  });

  it('by a panic with status 126, although it reboots after it, and shows the log', async () => {
    const { status, stderr, stdout } = await vivarium([
      'run',
      '--quiet',
      '--',
      'sh',
      '-c',
      'echo c > /proc/sysrq-trigger',
    ]);
    expect(stderr).toMatch(/Kernel panic - not syncing/);
    expect(stdout).toHaveLength(0);
    expect(status).toBe(126);
  });

  it('by its own init, from the console, with status 0', async () => {
    const { status } = await vivarium(['run', '--quiet'], { stdin: 'reboot\n' });
    expect(status).toBe(0);
  });

  it('by the power button, pressed by the first SIGINT', async () => {
    const run = start(['run', '--json']);
    await run.until(/vivarium:~# /);
    // The daemon that hears the button is started in the background; it is asked for before the button is pressed.
    run.type('until pidof acpid; do sleep 1; done; echo listening-$((40+2))\n');
    await run.until(/listening-42/);
    run.child.kill('SIGINT');
    const { status, stderr } = await run.ended;
    expect(events(stderr).at(-1), stderr).toMatchObject({
      event: 'exit',
      status: 130,
      reason: 'signal',
      guest: 'poweroff',
    });
    expect(status).toBe(130);
  });
});

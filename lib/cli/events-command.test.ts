import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { brokenPipe } from './fake-world.js';
import { controlledBox, type ControlledBox } from './testing-control.js';

let box: ControlledBox;
beforeEach(async () => (box = await controlledBox(() => undefined)));
afterEach(() => box.close());

const TIME = String.raw`\d{4}-\d\d-\d\dT[\d:.]+Z  `;

describe('events', () => {
  it('prints what happens for people, until the end', async () => {
    const { io, status } = box.start(['events', 'box']);
    const lines = (): string[] => io.collected.text.split('\n').slice(0, -1);
    await expect.poll(() => lines().length).toBe(1);
    box.machine.agent.boot();
    box.machine.pitEvent('catch-up', { owed: 100, lagMs: 400.04, firingHz: 500 });
    box.machine.pitEvent('storm', { limitHz: 300, firingHz: 500 });
    await box.main('pause', 'box');
    await box.main('snapshot', 'box', '/there');
    box.machine.onSnapshot = () => Promise.reject(new TypeError('no such mode'));
    await box.main('snapshot', 'box', '/other');
    await box.main('rebind', 'box', 'root', '/disk.img');
    await expect.poll(() => lines().length).toBe(10);
    await box.close();
    expect(await status).toBe(0);
    expect(lines().map((line) => line.replace(new RegExp(`^${TIME}`), ''))).toEqual([
      'running',
      'fake-agent 1 is there, on Linux 6.1.0-fake',
      'guest time: catch-up, 400.0 ms behind',
      'guest time: storm',
      'paused',
      'snapshot /there: started',
      'snapshot /there: done, the guest stood for 1.0 ms',
      'snapshot /other: started',
      'snapshot /other: failed: no such mode',
      'root has another backend; 0 requests were held',
      'ended: killed',
    ]);
    for (const line of lines()) expect(line).toMatch(new RegExp(`^${TIME}`));
  });

  it('prints the lines of the socket for programs', async () => {
    const { io, status } = box.start(['events', '--json', 'box']);
    await expect.poll(() => io.collected.text).toContain('\n');
    await box.close();
    expect(await status).toBe(0);
    expect(io.collected.events).toEqual([
      { type: 'state', at: expect.any(String), state: 'running' },
      { type: 'ended', at: expect.any(String), reason: 'killed' },
    ]);
  });

  it('is left by Ctrl-C, and ends as a writer does whose reader has gone', async () => {
    const { io, status } = box.start(['events', 'box']);
    await expect.poll(() => io.collected.text).toContain('running');
    io.signal('SIGINT');
    expect(await status).toBe(130);
    await expect.poll(() => box.control.target.events.size).toBe(0);
    const { status: piped } = box.start(['events', 'box'], { stdout: brokenPipe() });
    await expect.poll(() => box.control.target.events.size).toBe(1);
    // As any writer, it hears of it with its next line.
    await box.main('pause', 'box');
    expect(await piped).toBe(141);
  });

  it('of a machine that is not there says so', async () => {
    const { status, err } = await box.main('events', 'other');
    expect(status).toBe(125);
    expect(err).toMatch(/^vivarium: there is no machine named other\n/);
  });
});

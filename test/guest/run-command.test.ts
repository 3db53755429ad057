/** `vivarium run -- COMMAND` in a stock Debian kernel: streams, status, signals, time. */
import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { events, start, vivarium } from '../lib/command.js';

describe('run -- COMMAND', () => {
  it('gives the status, and keeps stdout and stderr apart', async () => {
    const { status, stdout, stderr } = await vivarium(
      ['run', '--cpus', '2', '--', 'sh', '-c', 'uname -r; nproc; id -u; tty; echo to stderr >&2; exit 7'],
      { env: { NO_COLOR: '1' } },
    );
    expect(stdout.toString(), stderr).toMatch(/^6\.\d+\.\d+\S*-cloud-amd64\n2\n0\nnot a tty\n$/);
    // At most one line of vivarium's own: which host it took and why.
    expect(stderr).toMatch(/^(vivarium: using [^\n]+\n)?to stderr\n$/);
    expect(status).toBe(7);
  });

  it('carries 10 MB of binary through stdin and stdout', async () => {
    const data = randomBytes(10_000_000);
    const { status, stdout, stderr } = await vivarium(['run', '--quiet', '--', 'cat'], { stdin: data });
    expect(stderr).toBe('');
    expect(stdout.length).toBe(data.length);
    expect(createHash('sha256').update(stdout).digest('hex')).toBe(createHash('sha256').update(data).digest('hex'));
    expect(status).toBe(0);
  });

  it('gives 127 for a command that is not there, with the event that tells it', async () => {
    const { status, stdout, stderr } = await vivarium(['run', '--json', '--', 'no-such-command', 'x']);
    expect(status).toBe(127);
    expect(stdout).toHaveLength(0);
    const told = events(stderr);
    expect(told.map(({ event }) => event)).toEqual(expect.arrayContaining(['start', 'host', 'boot', 'agent-ready']));
    expect(told.at(-1)).toMatchObject({
      event: 'exit',
      status: 127,
      reason: 'command',
      child: { kind: 'not-started', errno: 2 },
    });
  });

  it('ends with 124 when the time is over, whatever the guest does', async () => {
    const { status, stderr } = await vivarium(['run', '--timeout', '3', '--', 'sleep', '1000']);
    expect(stderr).toContain('--timeout 3: the time is over');
    expect(status).toBe(124);
  });

  it('asks the guest to power off at the first SIGINT', async () => {
    const run = start([
      'run',
      '--',
      'sh',
      '-c',
      'trap "echo asked; exit 5" TERM; echo ready; while :; do sleep 1; done',
    ]);
    await run.until(/ready/);
    run.child.kill('SIGINT');
    const { status, stdout, stderr } = await run.ended;
    expect(stderr).toContain('asked the guest to power off');
    expect(stdout.toString()).toContain('ready\n');
    expect(status).toBe(130);
  });

  it('ends at once by SIGTERM', async () => {
    const run = start(['run', '--quiet', '--', 'sh', '-c', 'echo ready; sleep 1000']);
    await run.until(/ready/);
    run.child.kill('SIGTERM');
    expect(await run.ended).toMatchObject({ status: 143, stderr: '' });
  });

  it('ends quietly when nobody reads its output', async () => {
    const run = start(['run', '--quiet', '--', 'yes'], { stdin: '' });
    await run.until(/y\ny\n/);
    run.child.stdout.destroy();
    expect(await run.ended).toMatchObject({ status: 141, stderr: '' });
  });
});

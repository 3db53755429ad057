/** Streams at their edges: closed from the start, larger than the guest takes; and a guest that says nothing at all. */
import { describe, expect, it } from 'vitest';
import { events, MAIN, start, Vivarium, vivarium } from '../lib/command.js';

const MiB = 1024 * 1024;

describe('a command', () => {
  it('with stdin and stdout closed reads an end, writes to nowhere, and has its status', async () => {
    const script = 'cat; echo lost; echo "read the end" >&2; exit 7';
    const line = `exec '${process.execPath}' '${MAIN}' run --quiet -- sh -c '${script}' <&- >&-`;
    const { status, stdout, stderr } = await new Vivarium('sh', ['-c', line], { stdin: '' }).ended;
    expect(stderr).toBe('read the end\n');
    expect(stdout).toHaveLength(0);
    expect(status).toBe(7);
  });

  it('that takes one byte of a stdin without end is over when it is', async () => {
    const line = `yes | '${process.execPath}' '${MAIN}' run --quiet -- head -c 1`;
    const { status, stdout, stderr } = await new Vivarium('sh', ['-c', line], { stdin: '' }).ended;
    expect(stderr).toBe('');
    expect(stdout.toString()).toBe('y');
    expect(status).toBe(0);
  });
});

describe('the console', () => {
  it('leaves a stdin that is larger than the guest takes where it is', async () => {
    const run = start(['run', '--quiet']);
    // No line end: the guest's terminal keeps 4 KiB of a line and drops the rest of it, at the pace of its port.
    run.type(Buffer.alloc(16 * MiB, 'x'));
    await run.until(/vivarium:~# /);
    expect(run.child.stdin.writableLength).toBeGreaterThan(12 * MiB);
    run.child.kill('SIGTERM');
    expect(await run.ended).toMatchObject({ status: 143, stderr: '' });
  });
});

describe('a guest that shows no sign of life', () => {
  it('is ended by the watchdog with 126, its console and its CPUs', async () => {
    // An init that waits for what nobody types: the kernel is up, and no agent ever comes.
    const wait = ['--append', 'rdinit=/bin/cat', '--stall-timeout', '10'];
    const { status, stderr } = await vivarium(['run', '--json', ...wait, '--', 'true']);
    const told = events(stderr);
    expect(told.slice(-2), stderr).toMatchObject([
      { event: 'stalled', seconds: 10, cpus: [{ id: 0, rip: expect.stringMatching(/^0x[0-9a-f]+$/) as string }] },
      { event: 'exit', status: 126, reason: 'stalled' },
    ]);
    expect(told.map(({ event }) => event)).toContain('console');
    expect(status).toBe(126);
  });
});

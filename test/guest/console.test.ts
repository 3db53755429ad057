/** The console of a stock guest on pipes and on a terminal: both ways, 1 MB each, and the terminal given back. */
import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { onTerminal, start } from '../lib/command.js';

const PROMPT = /vivarium:~# /;
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

describe('the console on pipes', () => {
  // A byte is two port accesses on its way in and more than one on its way out; each takes about 90 us in the embedded host.
  it('carries 1 MB to the guest and 1 MB back unharmed', { timeout: 1_220_000 }, async () => {
    const run = start(['run', '--quiet'], { watchdogS: 1200 });
    await run.until(PROMPT);
    const sent = randomBytes(1_000_000);
    // crtscts: a tty that is not read fast enough holds the sender instead of losing bytes.
    run.type('stty raw -echo crtscts; echo ready; head -c 1000000 > /tmp/in; sha256sum < /tmp/in; stty sane\n');
    await run.until(/ready\r?\n/);
    run.type(sent);
    const [, hash] = await run.until(/([0-9a-f]{64}) /);
    expect(hash).toBe(sha256(sent));

    run.type('stty raw -echo; echo; echo BEGIN; cat /tmp/in; echo; echo "E"ND; stty sane\n');
    await run.until(/\nEND\n/);
    const seen = run.stdout;
    const at = seen.lastIndexOf('BEGIN\n') + 'BEGIN\n'.length;
    expect(sha256(seen.subarray(at, at + sent.length))).toBe(sha256(sent));

    run.type('cat /proc/interrupts; date +%s; poweroff\n');
    const { status, stdout } = await run.ended;
    expect(stdout.toString('latin1')).toMatch(/4: +[1-9]\d* .*ttyS0/);
    expect(status).toBe(0);
  });

  it('takes what was typed before the guest listened', async () => {
    const run = start(['run', '--quiet'], { stdin: 'echo a-$((6*7))-b; poweroff\n' });
    const { status, stdout } = await run.ended;
    expect(stdout.toString()).toContain('a-42-b');
    expect(status).toBe(0);
  });
});

describe('the console on a terminal', () => {
  it('is raw, knows the size, and gives the terminal back after a power-off', async () => {
    const run = onTerminal(['run']);
    await run.until(PROMPT);
    run.type('stty size; poweroff\r');
    const { status, stdout } = await run.ended;
    expect(stdout.toString()).toMatch(/30 100\r*\n/);
    expect(stdout.toString()).toMatch(/\[status 0\]\r?\nicanon \r?\necho /);
    expect(status).toBe(0);
  });

  it('is left by Ctrl-]', async () => {
    const run = onTerminal(['run', '--quiet']);
    await run.until(PROMPT);
    run.type('\x1d');
    const { status, stdout } = await run.ended;
    expect(stdout.toString()).toMatch(/\[status 0\]\r?\nicanon \r?\necho /);
    expect(status).toBe(0);
  });

  it('that goes away ends the run, and nothing stays behind', async () => {
    const marker = `--append=vivarium.test=${process.pid}`;
    const run = onTerminal(['run', '--quiet', marker]);
    await run.until(PROMPT);
    run.child.kill('SIGKILL'); // script's, and with it the terminal
    await run.ended;
    await expect.poll(() => processesWith(marker), { timeout: 60_000, interval: 200 }).toEqual([]);
  });
});

/** Processes of this machine that have this word on their command line. */
async function processesWith(word: string): Promise<string[]> {
  const { readdir, readFile } = await import('node:fs/promises');
  const ids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && name !== String(process.pid));
  const lines = await Promise.all(ids.map((id) => readFile(`/proc/${id}/cmdline`, 'latin1').catch(() => '')));
  return ids.filter((_id, index) => lines[index]?.split('\0').includes(word));
}

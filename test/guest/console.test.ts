/** The console of a stock guest on pipes and on a terminal: bytes both ways, and the terminal given back. */
import { describe, expect, it } from 'vitest';
import { onTerminal, start } from '../lib/command.js';
import { expectCarried, PROMPT } from '../lib/console-bytes.js';

describe('the console on pipes', () => {
  // Many times what UART and line discipline hold; a whole megabyte is test/guest-long's.
  it('carries 100 kB to the guest and 100 kB back unharmed', { timeout: 320_000 }, () => expectCarried(100_000, 300));

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

/** The test of a stock guest's console on pipes that carries bytes both ways; how many says who calls. */
import { createHash, randomBytes } from 'node:crypto';
import { expect } from 'vitest';
import { start } from './command.js';

/** What a guest shows when its shell waits for a line. */
export const PROMPT = /vivarium:~# /;

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** To the guest, and the same back. In the embedded host some 350 us a byte both ways together. */
export async function expectCarried(byteCount: number, watchdogS: number): Promise<void> {
  const run = start(['run', '--quiet'], { watchdogS });
  await run.until(PROMPT);
  const sent = randomBytes(byteCount);
  // crtscts: a tty that is not read fast enough holds the sender instead of losing bytes.
  run.type(`stty raw -echo crtscts; echo ready; head -c ${byteCount} > /tmp/in; sha256sum < /tmp/in; stty sane\n`);
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
}

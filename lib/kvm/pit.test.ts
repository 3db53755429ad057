import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { readMinPeriodNs } from './pit.js';

it('reads the shortest period of the kernel in microseconds, and has a usual value for one that it does not get', () => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-pit-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'min_timer_period_us');
  expect(readMinPeriodNs(path)).toBe(200_000n);
  for (const [text, periodNs] of [
    ['500\n', 500_000n],
    ['0\n', 0n],
    ['', 200_000n],
    ['-1\n', 200_000n],
    ['many\n', 200_000n],
  ] as const) {
    writeFileSync(path, text);
    expect(readMinPeriodNs(path)).toBe(periodNs);
  }
});

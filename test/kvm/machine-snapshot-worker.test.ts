/** A Worker that has restored a machine lazily ends in the middle, in every way: nothing hangs, nothing stays, the process lives. */
import { expect, it } from 'vitest';
import { assemble } from '../lib/assemble.js';
import { playScene } from '../lib/scenes.js';
import { CAN_PAGE, snapshotFolder } from '../lib/snapshots.js';

const ADDRESS = 0x1_0000;

interface Left {
  readonly kvmFds: number;
  readonly kvmMaps: number;
  readonly fds: number;
  readonly threads: number;
  readonly counts: Record<string, number>;
}

interface Report {
  readonly before: Left;
  readonly after: Left;
  /** Groups that were missing when the Worker said that the machine was restored, and what it ended with. */
  readonly report: { readonly end: string; readonly missing: number | null; readonly error: string | null }[];
  readonly missingGroups: number;
}

if (CAN_PAGE) {
  it('leaves a machine whose memory still comes', { timeout: 300_000 }, async () => {
    // 96 MiB.
    const guest = Buffer.from(assemble('pattern', ADDRESS, { BASE: 0x20_0000, PAGES: 24_576 })).toString('base64');
    const request = JSON.stringify({ guest, address: ADDRESS, folder: snapshotFolder() });
    const played = await playScene(request, { script: 'snapshot-worker.mjs' });
    const { before, after, report, missingGroups } = played as unknown as Report;
    expect(report).toHaveLength(10);
    const fails = report.filter(({ error }) => error !== null);
    expect(fails.map(({ end, error }) => [end, error])).toEqual([['left by an exception', 'the Worker ends here']]);
    // Memory was still coming, or this has shown nothing.
    expect(Math.max(...report.map(({ missing }) => Number(missing)))).toBeGreaterThan(0);
    expect(missingGroups).toBe(0);
    expect(after).toEqual(before);
  });
} else {
  it('needs userfaultfd, which this user has not', () => {
    expect(CAN_PAGE).toBe(false);
  });
}

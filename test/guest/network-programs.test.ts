/** What people do with networks, in stock guests: iperf3, ethtool and ping of Debian, over networks that change. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { probeKvm } from '../../lib/host/index.js';
import { busybox } from '../../lib/images/busybox.js';
import { debianPrograms, NETWORK_PROGRAMS, type DebianProgramsWanted } from '../../lib/images/debian-programs.js';
import { defaultInitramfs } from '../../lib/images/initramfs.js';
import { defaultKernel } from '../../lib/images/kernel.js';
import { guestScriptReport } from '../lib/guest-script.js';

const ROUNDS = 1;
const IPERF_BYTES = 2 ** 18;
const PINGS = 100;

interface Iperf {
  readonly on: string[][];
  readonly sent: number[];
  readonly received: number[];
}

interface Report {
  readonly over: string[];
  readonly iperf: Record<'off' | 'on', Iperf>;
  readonly changing: Record<'off' | 'on', { changes: number; result: Iperf }> & {
    readonly pings: { changes: number; result: [number, number][] };
  };
}

const FEATURES = ['tx-checksumming', 'tcp-segmentation-offload', 'rx-gro-hw'];
const OFFLOADS = {
  off: { on: [[], []], segmented: false },
  on: { on: [FEATURES, FEATURES], segmented: true },
};

async function images(programs: DebianProgramsWanted) {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-programs-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const kernel = await defaultKernel();
  const [initrd, tools] = [await defaultInitramfs({ kernel }), await debianPrograms(programs)];
  return { kernel: kernel.path, initrd, tools, folder };
}

describe('two guests', () => {
  it(
    'run iperf3, ethtool and floods of pings, and keep a connection over tap, switch and a tap that they share',
    { timeout: 620_000 },
    async () => {
      const files = { ...(await images(NETWORK_PROGRAMS)), busybox: (await busybox()).path };
      const isEmbedded = !(await probeKvm()).linuxGuests;
      const report = await guestScriptReport<Report>(
        'network-programs.mjs',
        { ...files, rounds: ROUNDS, iperfBytes: IPERF_BYTES, pings: PINGS, isEmbedded },
        { paths: Object.keys(files), limitS: 600, ownNetwork: true },
      );
      const { pings, off, on } = report.changing;
      const changes = pings.changes + off.changes + on.changes;
      expect(report).toMatchObject({
        pings: [
          [PINGS, PINGS],
          [PINGS, PINGS],
        ],
        iperf: OFFLOADS,
        arrived: true,
        hostAnswers: { before: 5, takenBack: 0, after: 5 },
        changing: { off: { result: OFFLOADS.off }, on: { result: OFFLOADS.on } },
        rebinds: [changes + 3 * ROUNDS + 1, changes + 3 * ROUNDS + 1],
        reasons: ['poweroff', 'poweroff'],
      });
      // What was under way at the end is not among what iperf3 has received.
      for (const { sent, received } of [...Object.values(report.iperf), off.result, on.result]) {
        for (const bytes of sent) expect(bytes).toBeGreaterThanOrEqual(IPERF_BYTES);
        for (const bytes of received) expect(bytes).toBeGreaterThan(0);
      }
      expect([...report.over].sort()).toEqual(
        ['recorder', 'switch', 'tap'].flatMap((name) => Array.from({ length: ROUNDS }, () => name)),
      );
      for (const work of Object.values(report.changing)) expect(work.changes).toBeGreaterThan(1);
      // Echoes are lost while the two guests are on different networks.
      for (const [sent, received] of pings.result) {
        expect(sent).toBe(PINGS);
        expect(received).toBeGreaterThan(PINGS / 2);
      }
      expect(JSON.stringify(report)).not.toMatch(/"misbehaviour":\{"/);
    },
  );
});

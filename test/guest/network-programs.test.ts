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
      const report = await guestScriptReport<{ iperf: Record<string, { sent: number[]; received: number[] }> }>(
        'network-programs.mjs',
        { ...files, rounds: ROUNDS, iperfBytes: IPERF_BYTES, pings: PINGS, isEmbedded },
        { paths: Object.keys(files), limitS: 600, ownNetwork: true },
      );
      const features = ['tx-checksumming', 'tcp-segmentation-offload', 'rx-gro-hw'];
      expect(report).toMatchObject({
        pings: [
          [PINGS, PINGS],
          [PINGS, PINGS],
        ],
        iperf: { off: { on: [[], []], segmented: false }, on: { on: [features, features], segmented: true } },
        over: Array.from({ length: ROUNDS }, () => ['tap', 'recorder', 'switch']).flat(),
        arrived: true,
        hostAnswers: { before: 5, takenBack: 0, after: 5 },
        rebinds: [3 * ROUNDS + 1, 3 * ROUNDS + 1],
        reasons: ['poweroff', 'poweroff'],
      });
      // What was under way at the end is not among what iperf3 has received.
      for (const { sent, received } of Object.values(report.iperf)) {
        for (const bytes of sent) expect(bytes).toBeGreaterThanOrEqual(IPERF_BYTES);
        for (const bytes of received) expect(bytes).toBeGreaterThan(0);
      }
      expect(JSON.stringify(report)).not.toMatch(/"misbehaviour":\{"/);
    },
  );
});

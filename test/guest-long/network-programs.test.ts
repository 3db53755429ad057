/** What people do with networks, in stock guests: iperf3, ethtool, ping and curl of Debian, over networks that change. */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { probeKvm } from '../../lib/host/index.js';
import { busybox } from '../../lib/images/busybox.js';
import { CURL, debianPrograms, NETWORK_PROGRAMS, type DebianProgramsWanted } from '../../lib/images/debian-programs.js';
import { defaultInitramfs } from '../../lib/images/initramfs.js';
import { defaultKernel } from '../../lib/images/kernel.js';
import { freePort } from '../../lib/vsp/net/testing-far.js';
import { start } from '../lib/command.js';
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
    'run iperf3, ethtool and floods of pings, and keep a connection over tap and switch',
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
        rebinds: [3 * ROUNDS, 3 * ROUNDS],
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

describe('run --nic passt', () => {
  it('lets curl reach a server of this machine, and through a forward the guest itself', async () => {
    const { initrd, tools, folder } = await images(CURL);
    const content = randomBytes(1_000_000);
    const server = createServer((_request, response) => response.end(content)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const forward = await freePort('127.0.0.1');
    const both = join(folder, 'initrd');
    writeFileSync(both, Buffer.concat([initrd, tools].map((path) => readFileSync(path))));
    const run = start(['run', '--initrd', both, '--memory', '192M', '--nic', 'passt', '-p', `${forward}:80`]);
    run.type(`stty -echo; PS1=; until ip route | grep -q ^default; do usleep 50000; done
      curl -sS -o /tmp/got http://10.0.2.2:${port}/; sha256sum < /tmp/got
      httpd -p 80 -h /tmp; curl -sS http://10.0.2.2:${forward}/got | sha256sum; poweroff\n`);
    const { status, stdout, stderr } = await run.ended;
    const sums = [...stdout.toString('latin1').matchAll(/^([0-9a-f]{64}) {2}-/gm)].map((match) => match[1]);
    const sum = createHash('sha256').update(content).digest('hex');
    expect(sums, `${stdout.toString()}${stderr}`).toEqual([sum, sum]);
    expect(status).toBe(0);
  });
});

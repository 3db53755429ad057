/** Two stock guests on one network, whatever it stands on, and the command's own nics. */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { cpioArchive } from '../../lib/images/cpio.js';
import { defaultInitramfs } from '../../lib/images/initramfs.js';
import { defaultKernel } from '../../lib/images/kernel.js';
import type { DeviceContract } from '../../lib/vsp/index.js';
import { freePort } from '../../lib/vsp/net/testing-far.js';
import { MAIN, Vivarium, vivarium } from '../lib/command.js';
import { guestScriptReport } from '../lib/guest-script.js';

const REBINDS = 30;

interface Report {
  readonly [name: string]: unknown;
  readonly addresses: string[];
  readonly packets: { readonly longest: number; readonly count: number };
  readonly contracts: DeviceContract[];
}

/** What busybox lacks, as a further part of the initramfs. */
function makeTools(folder: string): string {
  const program = join(folder, 'offloads');
  const source = fileURLToPath(new URL('../lib/offloads.c', import.meta.url));
  execFileSync('cc', ['-static', '-O1', '-Wall', '-Wextra', '-o', program, source]);
  const tools = join(folder, 'tools.cpio');
  writeFileSync(tools, cpioArchive([{ path: 'bin/offloads', type: 'file', mode: 0o755, data: readFileSync(program) }]));
  return tools;
}

describe('two guests on a switch', () => {
  it('reach each other with every offload, over changing networks', { timeout: 620_000 }, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'vivarium-nics-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const kernel = await defaultKernel();
    const files = { kernel: kernel.path, initrd: await defaultInitramfs({ kernel }), tools: makeTools(folder), folder };
    const report = await guestScriptReport<Report>(
      'nics-script.mjs',
      { ...files, rebinds: REBINDS },
      { paths: Object.keys(files), limitS: 600 },
    );
    expect(report.addresses).toContain('10.9.0.2/24');
    const features = ['tx-checksum-ip-generic', 'tx-tcp-segmentation', 'tx-tcp6-segmentation', 'rx-gro-hw'];
    expect(report).toMatchObject({
      routes: expect.arrayContaining(['default via 10.9.0.1 dev eth0']) as string[],
      resolver: 'search example.test\nnameserver 10.9.0.1',
      mtu: '9000',
      losses: ['0', '0', '0', '0'],
      transfers: [true, true],
      offloads: {
        off: { on: [[], []], arrived: [true, true], segmented: false },
        on: { on: [features, features], arrived: [true, true], segmented: true },
      },
      recordedTransfer: true,
      changes: REBINDS,
      links: ['100', '0'],
      lent: [{ linkUp: true }, { linkUp: true }],
      reasons: ['poweroff', 'poweroff'],
    });
    // The guest's own large packets, uncut, at an MTU of 1500.
    expect(report.packets.longest).toBeGreaterThan(9100);
    expect(new Set(report['whileRebound'] as boolean[])).toEqual(new Set([true]));
    expect(JSON.stringify(report['proxies'])).toContain('"misbehaviour":{}');
    for (const contract of report.contracts) {
      expect(contract.rebinds).toBeGreaterThan(REBINDS);
      expect(new Set(Object.values(contract.functions).map(({ errors }) => errors))).toEqual(new Set([0]));
    }
  });
});

describe('run --nic', () => {
  it('brings interfaces up, says that nobody answers, and joins those of one switch', async () => {
    const inGuest = `
      unshare -n sleep 1000 & until [ -n "$(pidof sleep)" ]; do usleep 10000; done
      inside() { nsenter -n -t "$(pidof sleep)" "$@"; }
      cat /sys/class/net/eth0/operstate /sys/class/net/eth1/mtu
      ip link set eth1 netns "$(pidof sleep)"
      ip addr add 10.0.0.1/24 dev eth0; inside ip link set eth1 up; inside ip addr add 10.0.0.2/24 dev eth1
      ping -q -c 3 10.0.0.2`;
    const nics = ['--nic', 'switch:test-run,mtu=9000', '--nic', 'switch:test-run,mac=02:00:00:00:00:0a'];
    const { status, stdout, stderr } = await vivarium(['run', '--quiet', ...nics, '--', 'sh', '-c', inGuest]);
    expect(stdout.toString(), stderr).toMatch(
      /^up\n9000\n[^]*3 packets transmitted, 3 packets received, 0% packet loss/,
    );
    expect(stderr).toBe(
      'vivarium: the guest: eth0 has no address: nobody answered by DHCP (vivarium.dhcp=off asks nobody)\n',
    );
    expect(status).toBe(0);
  });

  it('reaches a server on the loopback of this machine through passt, and is reached through a forward', async () => {
    const content = randomBytes(3_000_000);
    const server = createServer((_request, response) => response.end(content)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const forward = await freePort('127.0.0.1');
    const inGuest = `
      ip -o -4 addr show eth0 | awk '{ print $4 }'
      wget -q -O got http://10.0.2.2:${port}/ && sha256sum got
      { until cat /proc/net/tcp* | grep -q ':0050 0*:0000 0A'; do usleep 10000; done; echo listening; } &
      nc -l -p 80 | sha256sum`;
    const run = new Vivarium(process.execPath, [
      ...[MAIN, 'run', '--quiet', '--nic', 'passt', '-p', `${forward}:80`, '--', 'sh', '-c', inGuest],
    ]);
    await run.until(/listening/);
    connect(forward, '127.0.0.1').end(content);
    const { status, stdout, stderr } = await run.ended;
    const sum = createHash('sha256').update(content).digest('hex');
    expect(stdout.toString(), stderr).toBe(`10.0.2.15/24\n${sum}  got\nlistening\n${sum}  -\n`);
    expect([status, stderr]).toEqual([0, '']);
  });
});

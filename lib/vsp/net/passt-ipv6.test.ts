/** passt over IPv6: a guest's datagrams and connections reach servers on the loopback of the host by the gateway's address. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { execFileSync } from 'node:child_process';
import { createServer, type AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import { hostClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import { hasRightChecksum } from './checksum.js';
import { layoutOf } from './frame-layout.js';
import { passt } from './passt.js';
import { packet } from './testing.js';
import { isInNamespace, makeDefaultRoute, runInNamespace, whyNoTap } from './testing-namespace.js';

const SYN = 0x02;
const SYN_ACK = 0x12;
/** Those of packet(), with which passt knows the guest by the host's own address, and maps the gateway's. */
const [GUEST, GATEWAY] = ['a0b:c0d:e0f:1011:1213:1415:1617:1819', '1a1b:1c1d:1e1f:2021:2223:2425:2627:2829'];
const DATAGRAM = Buffer.from('over IPv6');
const PORT = 5000;

if (isInNamespace) {
  it('answers datagrams and connections of the guest', async () => {
    makeDefaultRoute();
    const ip = (line: string) => execFileSync('ip', ['-6', ...line.split(' ')]);
    // A tap that nobody has open gets no address of its link by itself, and passt wants one.
    ip('addr add fe80::1/64 dev vvout nodad');
    ip(`addr add ${GUEST}/64 dev vvout nodad`);
    ip(`route add default via ${GATEWAY} dev vvout onlink`);
    const udp = createSocket('udp6').bind(0, '::1');
    udp.on('message', (bytes, { port, address }) => udp.send(bytes, port, address));
    const tcp = createServer().listen(0, '::1');
    await Promise.all([once(udp, 'listening'), once(tcp, 'listening')]);
    const backend = await passt().open({ id: 'net0', mac: 0x020000000001, logger: silentLogger, clock: hostClock });
    onTestFinished(async () => {
      await backend.close();
      udp.close();
      tcp.close();
    });
    /** The first frame of the protocol for that port, with its checksum right. */
    const answer = (protocol: 'tcp' | 'udp', question: Uint8Array) =>
      new Promise<Uint8Array>((resolve) => {
        listeners.push((bytes) => {
          const layout = layoutOf(bytes);
          if (layout?.version !== 6 || layout.protocol !== protocol) return;
          if (hasRightChecksum(bytes, layout)) resolve(bytes.subarray(layout.transportAt, layout.endAt));
        });
        backend.send([{ bytes: question }]);
      });
    const listeners: ((bytes: Uint8Array) => void)[] = [];
    const receive = (frames: readonly { bytes: Uint8Array }[]) => {
      for (const { bytes } of frames) listeners.forEach((listen) => listen(bytes));
    };
    backend.start({ receive, writable: () => {}, link: () => {} });
    const to = (server: { address(): unknown }) => [PORT, (server.address() as AddressInfo).port] as const;
    const datagram = await answer(
      'udp',
      packet({ version: 6, protocol: 'udp', ports: to(udp), payload: Uint8Array.from(DATAGRAM) }),
    );
    expect([datagram[2]! * 256 + datagram[3]!, Buffer.from(datagram.subarray(8))]).toEqual([PORT, DATAGRAM]);
    const opening = await answer('tcp', packet({ version: 6, flags: SYN, ports: to(tcp), payload: new Uint8Array(0) }));
    expect([opening[2]! * 256 + opening[3]!, opening[13]]).toEqual([PORT, SYN_ACK]);
  });
} else {
  it('passt serves IPv6, in a network namespace', { timeout: 120_000 }, async (context) => {
    const reason = whyNoTap();
    if (reason !== undefined) context.skip(reason);
    expect(await runInNamespace(fileURLToPath(import.meta.url))).toEqual({ passed: 1, others: [] });
  });
}

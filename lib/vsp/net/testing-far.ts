/** Far sides for the conformance of networks: the kernel's sockets of this process, or a guest in miniature. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import { hostClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import type { NetBackend } from './contract.js';
import { NetProvider } from './provider.js';
import type { ConformanceNetwork } from './testing-conformance.js';
import { ipOf, TinyGuest } from './testing-guest.js';

/** A port of `address` that nobody has at the moment. */
export async function freePort(address: string): Promise<number> {
  const server = createServer().listen(0, address);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Echo servers of this process on `address`, and their end. */
export async function echoServers(
  address: string,
): Promise<{ udpEchoPort: number; tcpEchoPort: number; close(): Promise<void> }> {
  const tcp = createServer((socket) => socket.on('error', () => {}).pipe(socket)).listen(0, address);
  await once(tcp, 'listening');
  const udp = createSocket('udp4');
  udp.on('message', (bytes, { port, address: to }) => udp.send(bytes, port, to));
  udp.bind(0, address);
  await once(udp, 'listening');
  return {
    udpEchoPort: udp.address().port,
    tcpEchoPort: (tcp.address() as AddressInfo).port,
    close: async () => {
      udp.close();
      // Connections that a network has left open are not waited for.
      tcp.close();
      tcp.unref();
      await Promise.resolve();
    },
  };
}

/** Sends over a connection to there, and gives what comes back. */
export async function echoOverSocket(port: number, address: string, bytes: Uint8Array): Promise<Uint8Array> {
  const socket = connect(port, address);
  const parts: Uint8Array[] = [];
  let count = 0;
  await new Promise<void>((resolve, reject) => {
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`closed after ${count} of ${bytes.length} bytes`)));
    socket.on('data', (part) => {
      parts.push(part);
      count += part.length;
      if (count >= bytes.length) resolve();
    });
    socket.write(bytes);
  });
  socket.removeAllListeners('close').destroy();
  return Buffer.concat(parts);
}

/** A network whose far side is another guest, behind `farBackend`. */
export function betweenGuests(
  backend: NetBackend,
  farBackend: NetBackend,
  close: () => Promise<void> | void = () => {},
): ConformanceNetwork {
  const net = new NetProvider({
    id: 'far',
    backend: farBackend,
    logger: silentLogger,
    mac: 0x02000000f000,
    clock: hostClock,
  });
  const far = new TinyGuest(net, '10.1.0.1');
  far.onUdp = (payload) => payload;
  far.listen(7, (tcp) => (tcp.onData = (bytes) => tcp.write(bytes)));
  return {
    backend,
    guestIp: '10.1.0.2',
    farIp: '10.1.0.1',
    udpEchoPort: 7,
    tcpEchoPort: 7,
    guestPort: 80,
    echoFromFar: async (bytes) => {
      await far.arp(ipOf('10.1.0.2'));
      const tcp = await far.connect(ipOf('10.1.0.2'), 80);
      const parts: Uint8Array[] = [];
      tcp.onData = (part) => parts.push(part);
      tcp.write(bytes);
      await far.until(() => tcp.receivedBytes >= bytes.length);
      return Buffer.concat(parts);
    },
    close: async () => {
      await net.close();
      await close();
    },
  };
}

/**
 * What every network has to do, whoever does it: the same checks over each backend, and once more with its native
 * functions off. At the far side there are echo servers for UDP and TCP, and somebody who connects to the guest.
 */
import assert from 'node:assert/strict';
import { hostClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import type { NetBackend, NetFrame } from './contract.js';
import { NetProvider } from './provider.js';
import { withoutNative } from './testing.js';
import { ipOf, TinyGuest } from './testing-guest.js';
import { lendingBackend } from './testing-lent.js';

/** A network with somebody at its far side. */
export interface ConformanceNetwork {
  readonly backend: NetBackend;
  readonly guestIp: string;
  readonly farIp: string;
  readonly udpEchoPort: number;
  readonly tcpEchoPort: number;
  /** Where the guest listens. */
  readonly guestPort: number;
  /** Connects to the guest from the far side, sends, and gives what came back, as much as was sent. */
  echoFromFar(bytes: Uint8Array): Promise<Uint8Array>;
  /** After the backend was closed. */
  close(): Promise<void>;
}

interface Rig {
  readonly network: ConformanceNetwork;
  readonly net: NetProvider;
  readonly guest: TinyGuest;
  readonly far: readonly number[];
}

const MAC = 0x020000000042;
const TRANSFER_BYTES = 300_000;
const bytesOf = (count: number, from = 1) =>
  Uint8Array.from({ length: count }, (_, at) => (from + at * 7 + (at >> 8)) & 255);

async function echoes({ guest, far, network }: Rig, bytes: Uint8Array): Promise<void> {
  const tcp = await guest.connect(far, network.tcpEchoPort);
  const parts: Uint8Array[] = [];
  tcp.onData = (part) => parts.push(part);
  tcp.write(bytes);
  await guest.until(() => tcp.receivedBytes >= bytes.length);
  assert.ok(Buffer.concat(parts).equals(bytes), 'the same bytes come back');
}

async function answersUdp({ guest, far, network }: Rig, payload: Uint8Array): Promise<void> {
  let heard: Uint8Array | undefined;
  guest.onUdp = (bytes) => {
    if (bytes.length === payload.length) heard = bytes;
    return undefined;
  };
  await guest.udp(far, network.udpEchoPort, payload, () => heard !== undefined);
  assert.ok(Buffer.from(heard!).equals(payload), 'the datagram comes back');
}

export const CONFORMANCE: readonly { readonly name: string; run(rig: Rig): Promise<void> }[] = [
  {
    name: 'finds the far side, and carries datagrams of every length both ways',
    run: async (rig) => {
      for (const lengthBytes of [1, 2, 17, 1000, 1472]) await answersUdp(rig, bytesOf(lengthBytes));
    },
  },
  {
    name: 'carries a stream that the guest opens, in large packets',
    run: (rig) => echoes(rig, bytesOf(TRANSFER_BYTES)),
  },
  {
    name: 'carries a stream that the far side opens',
    run: async ({ network, guest, far }) => {
      await guest.arp(far);
      guest.listen(network.guestPort, (tcp) => (tcp.onData = (bytes) => tcp.write(bytes)));
      const bytes = bytesOf(TRANSFER_BYTES, 9);
      assert.ok(Buffer.from(await network.echoFromFar(bytes)).equals(bytes), 'the same bytes come back');
    },
  },
  {
    name: 'loses what is no frame, or too long, and goes on',
    run: async (rig) => {
      const { guest, far, net, network } = rig;
      await guest.arp(far);
      for (const lengthBytes of [0, 1, 13, 1500 + 23, 66_000]) guest.raw([...bytesOf(lengthBytes)]);
      // Past the provider: a backend drops what it is not for, and stays.
      const wrong: NetFrame[] = [new Uint8Array(14), new Uint8Array(20).fill(255)].map((bytes) => ({ bytes }));
      network.backend.send(wrong);
      await answersUdp(rig, bytesOf(40));
      assert.deepEqual((net.inspect() as { dropped: { noFrame: number } }).dropped.noFrame, 5);
    },
  },
  {
    name: 'gives nothing while it is paused, and goes on afterwards',
    run: async (rig) => {
      const { guest, network } = rig;
      await answersUdp(rig, bytesOf(30));
      network.backend.setPaused(true);
      const { got } = guest;
      guest.raw([
        ...new Uint8Array(6).fill(255),
        2,
        0,
        0,
        0,
        0,
        0x42,
        8,
        6,
        0,
        1,
        8,
        0,
        6,
        4,
        0,
        1,
        ...new Uint8Array(20),
      ]);
      await new Promise((resolve) => setImmediate(resolve));
      assert.equal(guest.got, got);
      network.backend.setPaused(false);
      await answersUdp(rig, bytesOf(31));
    },
  },
  {
    name: 'keeps a stream over a link that is down for a moment',
    run: async (rig) => {
      const moving = echoes(rig, bytesOf(TRANSFER_BYTES, 5));
      const { net, network } = rig;
      net.setLink(false);
      network.backend.send([{ bytes: new Uint8Array(60) }]);
      net.setLink(true);
      await moving;
    },
  },
  {
    name: 'is silent once it is closed',
    run: async (rig) => {
      const { net, guest, network } = rig;
      await answersUdp(rig, bytesOf(32));
      await net.close();
      const { got } = guest;
      network.backend.send([{ bytes: new Uint8Array(60).fill(255) }]);
      network.backend.setPaused(false);
      await network.backend.close();
      assert.equal(guest.got, got);
    },
  },
];

/** Runs one check over a network that `open` makes. */
export async function conforms(
  check: (typeof CONFORMANCE)[number],
  open: () => Promise<ConformanceNetwork>,
  native: boolean,
): Promise<void> {
  const network = await open();
  const backend = lendingBackend(native ? network.backend : withoutNative(network.backend));
  const net = new NetProvider({ id: 'net0', backend, logger: silentLogger, mac: MAC, clock: hostClock });
  const guest = new TinyGuest(net, network.guestIp);
  try {
    await check.run({ network, net, guest, far: ipOf(network.farIp) });
    assert.equal(guest.wrong, 0, 'every checksum is right');
  } finally {
    guest.stop();
    await net.close();
    await network.close();
  }
}

/**
 * The control queue of the network device (virtio 1.2, 5.1.6.5), for net.ts: which frames the guest wants, its address,
 * and which of its offloads are on. A command that is not known, or whose data does not fit, is answered with an error;
 * it changes nothing then.
 */
import { VirtioNetAck, VirtioNetCtrl as C, VirtioNetFeature as F } from '../abi/virtio.js';
import type { ReceiveModes } from '../vsp/net/contract.js';
import { macAt } from '../vsp/net/mac-filter.js';
import type { NetContext } from './net.js';
import type { DescriptorChain, Virtqueue } from './virtqueue.js';

/** Class, command, and the largest table that is looked at: 4096 addresses of both kinds. */
const MAX_COMMAND_BYTES = 2 + 2 * 4 + 4096 * 6;
const OFFLOADS = F.GUEST_CSUM | F.GUEST_TSO4 | F.GUEST_TSO6 | F.GUEST_ECN;
const MODES: Readonly<Record<number, keyof ReceiveModes>> = {
  [C.RX_PROMISC]: 'promiscuous',
  [C.RX_ALLMULTI]: 'allMulticast',
  [C.RX_ALLUNI]: 'allUnicast',
  [C.RX_NOMULTI]: 'noMulticast',
  [C.RX_NOUNI]: 'noUnicast',
  [C.RX_NOBCAST]: 'noBroadcast',
};

export interface NetControlContext extends NetContext {
  offloads(features: bigint): void;
  /** The guest has given itself another address (5.1.6.5.2.1): the configuration shows it. */
  address(bytes: Uint8Array): void;
  /** The guest has said where it is (5.1.6.5.4). */
  announced(): void;
}

export class NetControl {
  readonly #queue: Virtqueue;
  readonly #context: NetControlContext;
  #isStopped = false;

  constructor(queue: Virtqueue, context: NetControlContext) {
    this.#queue = queue;
    this.#context = context;
  }

  stop(): void {
    this.#isStopped = true;
  }

  run(): void {
    if (this.#isStopped) return;
    const queue = this.#queue;
    const { activation, fail } = this.#context;
    let left = queue.size;
    queue.disableNotifications();
    for (; !this.#isStopped && left > 0; left--) {
      const chain = queue.pop();
      if (chain === undefined) {
        if (queue.enableNotifications()) continue;
        break;
      }
      if (chain.writable.lengthBytes === 0) return fail('a control command without room for its answer');
      const ok = this.#obey(chain);
      this.#context.counts[ok ? 'controls' : 'refusedControls']++;
      chain.writable.slice(0, 1).copyFrom(Uint8Array.of(ok ? VirtioNetAck.OK : VirtioNetAck.ERR));
      queue.push(chain.head, 1);
    }
    if (queue.publish()) activation.interrupt(queue.index);
    if (queue.broken !== undefined) return fail(queue.broken);
    // Commands that keep coming: others have their turn.
    if (left === 0) setImmediate(() => this.run());
  }

  #obey({ readable }: DescriptorChain): boolean {
    if (readable.lengthBytes < 2 || readable.lengthBytes > MAX_COMMAND_BYTES) return false;
    const bytes = new Uint8Array(readable.lengthBytes);
    readable.copyTo(bytes);
    const data = bytes.subarray(2);
    switch (bytes[0]) {
      case C.RX:
        return this.#setMode(bytes[1]!, data);
      case C.MAC:
        if (bytes[1] === C.MAC_TABLE_SET) return this.#setTables(data);
        return bytes[1] === C.MAC_ADDR_SET && this.#setAddress(data);
      case C.ANNOUNCE:
        return bytes[1] === C.ANNOUNCE_ACK && this.#acknowledge(data);
      case C.GUEST_OFFLOADS:
        return bytes[1] === C.GUEST_OFFLOADS_SET && this.#setOffloads(data);
      default:
        return false;
    }
  }

  #setMode(command: number, data: Uint8Array): boolean {
    const mode = MODES[command];
    if (mode === undefined || data.length !== 1 || data[0]! > 1) return false;
    this.#context.service.filter.setModes({ [mode]: data[0] === 1 });
    return true;
  }

  #setTables(data: Uint8Array): boolean {
    const unicast = addresses(data, 0);
    const multicast = unicast && addresses(data, 4 + 6 * unicast.length);
    if (unicast === undefined || multicast === undefined) return false;
    if (data.length !== 8 + 6 * (unicast.length + multicast.length)) return false;
    this.#context.service.filter.setTables(unicast, multicast);
    return true;
  }

  #setAddress(data: Uint8Array): boolean {
    if (data.length !== 6 || (data[0]! & 1) !== 0) return false;
    this.#context.service.filter.setAddress(macAt(data, 0));
    this.#context.address(data);
    return true;
  }

  #acknowledge(data: Uint8Array): boolean {
    if (data.length !== 0 || (this.#context.activation.features & F.GUEST_ANNOUNCE) === 0n) return false;
    this.#context.announced();
    return true;
  }

  #setOffloads(data: Uint8Array): boolean {
    if (data.length !== 8) return false;
    const offloads = new DataView(data.buffer, data.byteOffset).getBigUint64(0, true);
    // 5.1.6.5.6.2: none that was not negotiated.
    if ((offloads & ~(this.#context.activation.features & OFFLOADS)) !== 0n) return false;
    this.#context.offloads(offloads);
    return true;
  }
}

/** struct virtio_net_ctrl_mac at `at`: le32 entries, then the addresses. */
function addresses(data: Uint8Array, at: number): number[] | undefined {
  if (at + 4 > data.length) return undefined;
  const entries = new DataView(data.buffer, data.byteOffset + at).getUint32(0, true);
  if (at + 4 + 6 * entries > data.length) return undefined;
  return Array.from({ length: entries }, (_, index) => macAt(data, at + 4 + 6 * index));
}

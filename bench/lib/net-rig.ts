/**
 * The network device alone: guest memory, a provider over a network that takes everything and does nothing, the device and its
 * queues, driven by the mock driver in place of a guest. Frames of one size go one way without pause.
 */
import { VirtioNetHdr } from '#lib/abi/virtio.js';
import { gpa } from '#lib/base/address.js';
import { silentLogger } from '#lib/base/logger.js';
import { AddressSpace } from '#lib/memory/index.js';
import { MockDriver, type Piece } from '#lib/vdp/mock-driver.js';
import { NetDevice } from '#lib/vdp/net.js';
import { SplitQueue } from '#lib/vdp/split-queue.js';
import type { NetBackend, NetFrame, NetHostEnd } from '#lib/vsp/net/contract.js';
import { NetProvider } from '#lib/vsp/net/provider.js';

const MEMORY_BYTES = 16 * 2 ** 20;
const QUEUE_SIZE = 256;
const QUEUES = 0x10_0000;
const QUEUE_STRIDE = 0x1_0000;
const TRANSMIT_DATA = 0x20_0000;
const RECEIVE_DATA = 0x60_0000;
/** Room for the header and a frame of an Ethernet. */
const BUFFER_BYTES = 2048;
/** What a network gives at once, and what a driver sends before it notifies. */
const BATCH = 64;
const MAC = 0x02_00_00_00_00_01;

export interface NetSample {
  readonly frames: number;
  readonly elapsedMs: number;
  /** CPU time of the whole process. */
  readonly cpuMs: number;
  /** Of the elapsed time, the mock driver's own. */
  readonly driverMs: number;
}

/** Takes all and counts it. */
class Sink implements NetBackend {
  readonly takes = { checksum: false, segments: false };
  readonly gives = { checked: false, merged: false };
  readonly mtuBytes = 1500;
  taken = 0;
  host!: NetHostEnd;
  start(host: NetHostEnd): void {
    this.host = host;
  }
  send(frames: readonly NetFrame[]): boolean {
    this.taken += frames.length;
    return true;
  }
  setPaused(): void {
    // It only gives what the driver has buffers for.
  }
  describe() {
    return { kind: 'sink' };
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}

export class NetRig {
  readonly #memory = new AddressSpace({ ranges: [{ gpa: gpa(0), sizeBytes: MEMORY_BYTES }] });
  readonly #network = new Sink();
  readonly #provider: NetProvider;
  readonly #device: NetDevice;
  readonly #receive: MockDriver;
  readonly #transmit: MockDriver;
  readonly #frames: readonly NetFrame[];
  readonly #sendChains: readonly (readonly Piece[])[];
  readonly #receiveChains: readonly (readonly Piece[])[];
  #driverMs = 0;
  #failure: Error | undefined;

  static async open(frameBytes: number): Promise<NetRig> {
    const rig = new NetRig(frameBytes);
    // The session begins in a turn of its own.
    await Promise.resolve();
    return rig;
  }

  private constructor(frameBytes: number) {
    this.#provider = new NetProvider({ id: 'net', backend: this.#network, logger: silentLogger, mac: MAC });
    this.#device = new NetDevice('net', this.#provider);
    const [receive, transmit, control] = [0, 1, 2].map((index) => {
      return new MockDriver(this.#memory, {
        index,
        size: QUEUE_SIZE,
        gpa: QUEUES + index * QUEUE_STRIDE,
        eventIndex: true,
      });
    }) as [MockDriver, MockDriver, MockDriver];
    this.#receive = receive;
    this.#transmit = transmit;
    const frame = plainFrame(frameBytes);
    this.#frames = Array.from({ length: BATCH }, () => ({ bytes: frame }));
    const chains = (data: number, length: number, writable: boolean) =>
      Array.from({ length: QUEUE_SIZE }, (_, slot) => [{ gpa: data + slot * BUFFER_BYTES, length, writable }]);
    this.#sendChains = chains(TRANSMIT_DATA, VirtioNetHdr.SIZE + frameBytes, false);
    this.#receiveChains = chains(RECEIVE_DATA, BUFFER_BYTES, true);
    for (const [piece] of this.#sendChains) this.#memory.write(gpa(piece!.gpa + VirtioNetHdr.SIZE), frame);
    this.#device.activate({
      features: this.#device.features,
      queues: [receive, transmit, control].map(({ queueOptions }) => new SplitQueue(queueOptions)),
      interrupt: () => undefined,
      configChanged: () => undefined,
      needsReset: (reason) => (this.#failure = new Error(`the device needs a reset: ${reason}`)),
    });
  }

  /** The guest sends so many frames, a multiple of 64. */
  send(frames: number): NetSample {
    return this.#measure(frames, () => {
      const startMs = performance.now();
      this.#transmit.collect();
      for (let slot = 0; slot < BATCH; slot++) this.#transmit.add(this.#sendChains[slot]!);
      const notifies = this.#transmit.publish();
      this.#driverMs += performance.now() - startMs;
      const before = this.#network.taken;
      if (notifies) this.#device.notify(1);
      if (this.#network.taken - before !== BATCH) throw new Error('not all frames were sent');
    });
  }

  /** The network gives so many frames, a multiple of 64. */
  receive(frames: number): NetSample {
    return this.#measure(frames, () => {
      const startMs = performance.now();
      for (let slot = 0; slot < BATCH; slot++) this.#receive.add(this.#receiveChains[slot]!);
      if (this.#receive.publish()) this.#device.notify(0);
      this.#driverMs += performance.now() - startMs;
      this.#network.host.receive(this.#frames);
      const collectMs = performance.now();
      if (this.#receive.collect().length !== BATCH) throw new Error('not all frames were received');
      this.#driverMs += performance.now() - collectMs;
    });
  }

  async close(): Promise<void> {
    this.#device.close();
    await this.#provider.close();
    this.#memory.close();
  }

  #measure(frames: number, batch: () => void): NetSample {
    this.#driverMs = 0;
    const cpu = process.cpuUsage();
    const startMs = performance.now();
    for (let done = 0; done < frames; done += BATCH) batch();
    const elapsedMs = performance.now() - startMs;
    const { user, system } = process.cpuUsage(cpu);
    if (this.#failure) throw this.#failure;
    return { frames, elapsedMs, cpuMs: (user + system) / 1000, driverMs: this.#driverMs };
  }
}

/** Of no protocol that anybody looks into, for the device's own address. */
function plainFrame(lengthBytes: number): Uint8Array {
  const frame = new Uint8Array(lengthBytes).fill(0x5a);
  for (const at of [0, 6]) frame.set([0x02, 0, 0, 0, 0, 1], at);
  frame.set([0x88, 0xb5], 12);
  return frame;
}

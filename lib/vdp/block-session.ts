/**
 * Executes the requests of a block device between one activate() and the reset() behind it, for block.ts: from the queue
 * to the service and back. What the service completes in one turn is published together, with one interrupt.
 * After stop() nothing of it touches guest memory, whatever still comes back.
 */
import { VIRTIO_BLK_ID_BYTES, VirtioBlkFeature, VirtioBlkStatus } from '../abi/virtio.js';
import { atEndOfTurn } from '../base/turn.js';
import type { GuestVector } from '../memory/io-vector.js';
import type { BlockDone, BlockError, BlockService } from '../vsp/block/contract.js';
import type { BlockConfig } from './block-config.js';
import { BlockRequest, BlockRequestParser, type BlockChange, type BlockWork } from './block-request.js';
import type { VirtioActivation } from './virtio-device.js';
import type { DescriptorChain, Virtqueue } from './virtqueue.js';

/** Counted over the life of a device. */
export interface BlockCounts {
  readonly requests: Record<BlockWork['kind'], number>;
  /** Of these, how many ended with IOERR or UNSUPP. */
  failed: number;
  interrupts: number;
}

export class BlockSession {
  readonly #service: BlockService;
  readonly #config: BlockConfig;
  readonly #activation: VirtioActivation;
  readonly #queue: Virtqueue;
  readonly #parser: BlockRequestParser;
  readonly #counts: BlockCounts;
  readonly #status = new Uint8Array(1);
  readonly #free: BlockRequest[] = [];
  readonly #ended = (request: BlockRequest, error: BlockError | undefined): void => this.#done(request, error);
  readonly #turnEnds = (): void => this.publish();
  /** Requests that the service has. */
  #inService = 0;
  #stopped = false;
  /** Somebody will publish at the end of this turn. */
  #publishing = false;
  #onDrained: (() => void) | undefined;

  constructor(
    service: BlockService,
    config: BlockConfig,
    activation: VirtioActivation,
    queue: Virtqueue,
    counts: BlockCounts,
  ) {
    this.#service = service;
    this.#config = config;
    this.#activation = activation;
    this.#queue = queue;
    this.#counts = counts;
    this.#parser = new BlockRequestParser(activation.features);
  }

  get inService(): number {
    return this.#inService;
  }

  /** Takes all that is available: at most the queue's size, since nothing is given back before the end. */
  run(): void {
    if (this.#stopped) return;
    const outer = this.#publishing;
    this.#publishing = true;
    this.#queue.disableNotifications();
    do {
      for (let chain = this.#queue.pop(); chain !== undefined; chain = this.#queue.pop()) {
        if (!this.#submit(chain)) return;
      }
    } while (this.#queue.enableNotifications());
    if (this.#queue.broken !== undefined) return this.#fail(this.#queue.broken);
    if (!outer) this.publish();
  }

  /** Resolves when the service has nothing of this session any more. */
  stop(): Promise<void> {
    this.#stopped = true;
    return new Promise((resolve) => {
      if (this.#inService === 0) return resolve();
      const before = this.#onDrained;
      this.#onDrained = () => {
        before?.();
        resolve();
      };
    });
  }

  /** False when the session has ended with it. */
  #submit(chain: DescriptorChain): boolean {
    const request = this.#free.pop() ?? new BlockRequest(chain.writable.memory, this.#ended);
    if (!this.#parser.parse(chain, request)) {
      this.#fail(`a request without a place for its status (head ${chain.head})`);
      return false;
    }
    const { work } = request;
    this.#counts.requests[work.kind]++;
    switch (work.kind) {
      case 'refused':
        this.#complete(request, work.status, 0);
        break;
      case 'identify':
        this.#identify(request, work.data);
        break;
      case 'read':
        this.#inService++;
        this.#service.read(work.offset, work.data, request.done);
        break;
      case 'flush':
        this.#inService++;
        this.#service.flush(request.done);
        break;
      case 'write':
      case 'discard':
      case 'write-zeroes':
        if (this.#service.readOnly) this.#complete(request, VirtioBlkStatus.IOERR, 0);
        else this.#change(request, work);
        break;
    }
    return true;
  }

  #identify(request: BlockRequest, data: GuestVector): void {
    const id = new Uint8Array(Math.min(VIRTIO_BLK_ID_BYTES, data.lengthBytes));
    id.set(Buffer.from(this.#service.identify(), 'latin1').subarray(0, id.length));
    data.copyFrom(id);
    // A longer buffer is filled up to the id's end, and the status stands apart from it.
    const all = data.lengthBytes === id.length;
    this.#complete(request, VirtioBlkStatus.OK, all ? request.writableBytes : id.length);
  }

  #change(request: BlockRequest, work: BlockChange): void {
    this.#inService++;
    const finish = request.done;
    const done: BlockDone = this.#isWriteThrough()
      ? (error) => {
          if (error === undefined && !this.#stopped) this.#service.flush(finish);
          else finish(error);
        }
      : finish;
    if (work.kind === 'write') return this.#service.write(work.offset, work.data, done);
    const each = joined(work.ranges.length, done);
    for (const { offset, lengthBytes, mayUnmap } of work.ranges) {
      if (work.kind === 'discard') this.#service.discard(offset, lengthBytes, each);
      else this.#service.writeZeroes(offset, lengthBytes, mayUnmap, each);
    }
  }

  /** Whether a change is durable before it is done (5.2.6.2): the driver can't flush, or switched the cache off. */
  #isWriteThrough(): boolean {
    const { features } = this.#activation;
    if ((features & VirtioBlkFeature.CONFIG_WCE) !== 0n) return !this.#config.writeback;
    return (features & VirtioBlkFeature.FLUSH) === 0n;
  }

  #done(request: BlockRequest, error: BlockError | undefined): void {
    this.#inService--;
    if (this.#stopped) {
      if (this.#inService === 0) this.#onDrained?.();
      return;
    }
    if (error !== undefined) {
      const status = error.code === 'unsupported' ? VirtioBlkStatus.UNSUPP : VirtioBlkStatus.IOERR;
      this.#complete(request, status, 0);
    } else {
      // Of a read all writable bytes were written; of other requests only the last one.
      this.#complete(request, VirtioBlkStatus.OK, request.work.kind === 'read' ? request.writableBytes : 0);
    }
  }

  /** @param writtenBytes from the first writable byte on; the status adds itself when nothing stands before it. */
  #complete(request: BlockRequest, status: number, writtenBytes: number): void {
    if (status !== VirtioBlkStatus.OK) this.#counts.failed++;
    this.#status[0] = status;
    request.memory.write(request.statusGpa, this.#status);
    this.#queue.push(request.head, request.writableBytes === 1 ? 1 : writtenBytes);
    this.#free.push(request);
    if (this.#publishing) return;
    this.#publishing = true;
    atEndOfTurn(this.#turnEnds);
  }

  /** What was completed and not told yet. */
  publish(): void {
    this.#publishing = false;
    if (this.#stopped || !this.#queue.publish()) return;
    this.#counts.interrupts++;
    this.#activation.interrupt(this.#queue.index);
  }

  /** The driver broke the rules. What was completed before it is still told, where the queue can. */
  #fail(reason: string): void {
    this.publish();
    this.#stopped = true;
    this.#activation.needsReset(reason);
  }
}

/** Calls `done` once, when `count` calls have ended; with the first error. */
function joined(count: number, done: BlockDone): BlockDone {
  let left = count;
  let first: BlockError | undefined;
  return (error) => {
    first ??= error;
    if (--left === 0) done(first);
  };
}

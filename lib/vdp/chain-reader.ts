/**
 * Reads descriptor chains out of guest memory (virtio 1.2, 2.7.5), for split-queue.ts. The driver may change the tables
 * at any moment, so each word is loaded once and an indirect table is copied whole; what was checked is what is used.
 * A chain that breaks a rule is answered with a text that says which. It writes nothing.
 */
import { VIRTQ_DESC_BYTES, VIRTQ_MAX_CHAIN_BYTES, VirtqDescFlag } from '../abi/virtio.js';
import type { DeviceMemory } from '../memory/device-memory.js';
import { GuestVector } from '../memory/io-vector.js';
import type { DescriptorChain } from './virtqueue.js';

const WORDS = VIRTQ_DESC_BYTES / 4;

export interface ChainReaderOptions {
  readonly memory: DeviceMemory;
  /** The descriptor table: a view of guest memory. */
  readonly table: Uint32Array;
  /** The most descriptors in a chain, beside the one that refers to an indirect table. */
  readonly maxDescriptors: number;
  /** VIRTIO_F_INDIRECT_DESC was negotiated. */
  readonly indirect: boolean;
}

export class ChainReader {
  readonly #memory: DeviceMemory;
  readonly #table: Uint32Array;
  readonly #maxDescriptors: number;
  readonly #indirect: boolean;
  readonly #nothing: GuestVector;
  /** Start and end of each range of RAM, in turn. */
  readonly #ram: readonly number[];
  /** The copy of an indirect table; grown up to the longest that is allowed. */
  #copy = new Uint32Array(0);
  /** As many bytes of it as the last table had: the next one mostly has as many. */
  #target = new Uint8Array(0);
  /** The pieces of the chain that is being read: those that the device reads, then those that it writes. */
  readonly #gpas: number[] = [];
  readonly #lengths: number[] = [];

  constructor(options: ChainReaderOptions) {
    this.#memory = options.memory;
    this.#table = options.table;
    this.#maxDescriptors = options.maxDescriptors;
    this.#indirect = options.indirect;
    this.#nothing = new GuestVector(options.memory, [], []);
    this.#ram = options.memory.ranges.flatMap((range) => [range.gpa, range.gpa + range.sizeBytes]);
  }

  /** The chain that starts at descriptor `head`, or what is wrong with it. */
  read(head: number): DescriptorChain | string {
    const gpas = this.#gpas;
    const lengths = this.#lengths;
    let pieces = 0;
    let readable = 0;
    let words = this.#table;
    let entries = words.length / WORDS;
    let inTable = false;
    let visited = 0;
    let descriptors = 0;
    let totalBytes = 0;
    let writing = false;
    for (let index = head; ;) {
      // 2.7.5: next is an index of the same table.
      if (index >= entries) return `descriptor ${index} of a table of ${entries}`;
      // 2.7.5.2: no loops. A way that is longer than its table has one.
      if (++visited > entries) return `a loop in a descriptor chain (head ${head})`;
      const at = index * WORDS;
      const addressLow = words[at]!;
      const addressHigh = words[at + 1]!;
      const length = words[at + 2]!;
      const flagsAndNext = words[at + 3]!;
      const flags = flagsAndNext & 0xffff;
      // Beyond 2^53 this is not exact, and then it is not in RAM either.
      const address = addressHigh * 2 ** 32 + addressLow;

      if ((flags & VirtqDescFlag.INDIRECT) !== 0) {
        // 2.7.5.3.1: only when negotiated, one level, and never with NEXT. 2.7.5.3.2: WRITE is ignored.
        if (!this.#indirect) return 'an indirect descriptor, which was not negotiated';
        if (inTable) return 'an indirect descriptor in an indirect table';
        if ((flags & VirtqDescFlag.NEXT) !== 0) return 'an indirect descriptor with a next one';
        const problem = this.#copyTable(address, length);
        if (problem !== undefined) return problem;
        words = this.#copy;
        entries = length / VIRTQ_DESC_BYTES;
        inTable = true;
        visited = 0;
        index = 0;
        continue;
      }

      // 2.7.5.3.1: a chain is not longer than the queue.
      if (++descriptors > this.#maxDescriptors) return `a chain of more than ${this.#maxDescriptors} descriptors`;
      const writable = (flags & VirtqDescFlag.WRITE) !== 0;
      // 2.7.4.2: what the device writes stands behind what it reads.
      if (writing && !writable) return 'a readable descriptor behind a writable one';
      writing = writable;
      // A piece without a byte has no address either, whatever stands there.
      if (length !== 0) {
        totalBytes += length;
        if (totalBytes > VIRTQ_MAX_CHAIN_BYTES) return 'a chain of more than 4 GiB';
        if (!this.#inRam(address, length)) return `${length} bytes at 0x${address.toString(16)}, which is not RAM`;
        gpas[pieces] = address;
        lengths[pieces++] = length;
        if (!writable) readable = pieces;
      }
      if ((flags & VirtqDescFlag.NEXT) === 0) break;
      index = flagsAndNext >>> 16;
    }
    return { head, readable: this.#vector(0, readable), writable: this.#vector(readable, pieces) };
  }

  /** A part of the chain's pieces, in arrays that are no longer than it: most have one piece or two. */
  #vector(from: number, to: number): GuestVector {
    const gpas = this.#gpas;
    const lengths = this.#lengths;
    switch (to - from) {
      case 0:
        return this.#nothing;
      case 1:
        return new GuestVector(this.#memory, [gpas[from]!], [lengths[from]!]);
      case 2:
        return new GuestVector(this.#memory, [gpas[from]!, gpas[from + 1]!], [lengths[from]!, lengths[from + 1]!]);
      default:
        return new GuestVector(this.#memory, gpas.slice(from, to), lengths.slice(from, to));
    }
  }

  /** Copies an indirect table; what is wrong with it, if anything. */
  #copyTable(address: number, lengthBytes: number): string | undefined {
    if (lengthBytes === 0 || lengthBytes % VIRTQ_DESC_BYTES !== 0) return `an indirect table of ${lengthBytes} bytes`;
    const entries = lengthBytes / VIRTQ_DESC_BYTES;
    // The work of one pop is bounded: no longer than the longest chain.
    if (entries > this.#maxDescriptors) return `an indirect table of ${entries} descriptors`;
    if (!this.#inRam(address, lengthBytes)) {
      return `an indirect table of ${lengthBytes} bytes at 0x${address.toString(16)}, which is not RAM`;
    }
    const grows = this.#copy.length < entries * WORDS;
    if (grows) this.#copy = new Uint32Array(Math.min(this.#maxDescriptors, Math.max(entries * 2, 16)) * WORDS);
    if (grows || this.#target.length !== lengthBytes) {
      this.#target = new Uint8Array(this.#copy.buffer, 0, lengthBytes);
    }
    this.#memory.readInto(address, this.#target);
    return undefined;
  }

  #inRam(gpa: number, length: number): boolean {
    const ram = this.#ram;
    for (let i = 0; i < ram.length; i += 2) if (gpa >= ram[i]! && gpa + length <= ram[i + 1]!) return true;
    return false;
  }
}

/**
 * Structure-aware fuzzing of PCI configuration: the two ports, headers, BAR sizing and moving, the command register,
 * capabilities, MSI-X tables and masks, of several functions at once, beside a plain model of all of it. What a guest
 * writes to one function changes no other, no BAR is decoded outside the window or over another, and devices that stand
 * elsewhere stay where they are.
 */
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { FUZZ_RUNS, FUZZ_TIMEOUT_MS, fuzz, Random } from '../../base/fuzzing.js';
import { silentLogger } from '../../base/logger.js';
import { AddressBus, type BusDevice } from '../../bus/index.js';
import { ConfigSpace } from './config-space.js';
import { PCI_MEMORY_WINDOW, PciHostBridge } from './host-bridge.js';
import { type MsiMessage, Msix } from './msix.js';

const { first: WINDOW, length: WINDOW_BYTES } = PCI_MEMORY_WINDOW;
const COMMAND_MASK = 0x0546;
const MSIX_CONTROL = 0x42;
const VECTORS = 3;
const RAM_GPA = 0x10_0000;
const IO_APIC_GPA = WINDOW + WINDOW_BYTES;
const seen = { placed: 0, clashes: 0, sent: 0, kept: 0 };

/** Bytes of memory-mapped space that tell who answers. */
function labelled(name: string, label: number): BusDevice {
  return { name, read: () => label, write: () => undefined, reset: () => undefined, inspect: () => ({}) };
}

interface Bar {
  readonly index: number;
  readonly sizeBytes: number;
  readonly label: number;
  placed: number | undefined;
}

/** A function, and what its bytes and its table must be. */
interface Model {
  readonly bars: readonly Bar[];
  readonly bytes: Uint8Array;
  readonly powerOn: Uint8Array;
  readonly writable: Uint8Array;
  readonly table: Uint32Array;
  readonly pending: boolean[];
  readonly msix: Msix;
  readonly sent: (MsiMessage & { readonly vector: number })[];
}

class Machine {
  readonly functions: Model[] = [];
  readonly #ports: AddressBus;
  readonly #mmio: AddressBus;
  readonly #bridge: PciHostBridge;
  readonly #view = new DataView(new ArrayBuffer(8));
  readonly #data = [0, 1, 2, 3, 4].map((size) => new Uint8Array(this.#view.buffer, 0, size));
  #address = 0;

  constructor(random: Random) {
    const options = { clock: new ManualClock(), logger: silentLogger };
    this.#ports = new AddressBus({ space: 'port', ...options });
    this.#mmio = new AddressBus({ space: 'mmio', ...options });
    this.#mmio.add({ first: RAM_GPA, length: 0x1000 }, labelled('low', 0xa1));
    this.#mmio.add({ first: IO_APIC_GPA, length: 0x1000 }, labelled('io-apic', 0xa2));
    this.#bridge = new PciHostBridge({
      ports: this.#ports,
      mmio: this.#mmio,
      irqLine: () => ({ set: () => undefined }),
    });
    for (let slot = 1; slot <= 1 + random.below(3); slot++) this.#add(slot, random);
  }

  #add(slot: number, random: Random): void {
    const config = new ConfigSpace({
      vendorId: 0x1af4,
      deviceId: 0x1040 + slot,
      revision: 1,
      classCode: 0x010000,
      subsystemVendorId: 0x1af4,
      subsystemId: slot,
    });
    const sizeBytes = random.of([0x1000, 0x4000, 0x10_0000]);
    config.addBar(0, sizeBytes);
    const sent: Model['sent'] = [];
    const vectors = Array.from({ length: VECTORS }, (_, vector) => {
      let message: MsiMessage | undefined;
      return {
        configure: (next: MsiMessage) => void (message = next),
        signal: () => void sent.push({ vector, address: message?.address ?? -1n, data: message?.data ?? -1 }),
        close: () => undefined,
      };
    });
    const msix = new Msix(config, { name: `f${slot}:msix`, bar: 1, vectors });
    const bars: Bar[] = [
      { index: 0, sizeBytes, label: 16 * slot, placed: undefined },
      { index: 1, sizeBytes: 0x1000, label: -1, placed: undefined },
    ];
    this.#bridge.add(() => ({
      name: `f${slot}`,
      config,
      bars: bars.map((bar) => ({
        index: bar.index,
        device: bar.index === 1 ? msix : labelled(`f${slot}`, bar.label),
        onPlaced: (gpa) => void (bar.placed = gpa),
      })),
      reset: () => msix.reset(),
      inspect: () => ({}),
    }));
    const bytes = Uint8Array.from({ length: 256 }, (_, at) => config.get(at, 1));
    const writable = new Uint8Array(256);
    const words = new DataView(writable.buffer);
    words.setUint16(0x04, COMMAND_MASK, true);
    for (const at of [0x0c, 0x0d, 0x3c]) writable[at] = 0xff;
    for (const bar of bars) words.setUint32(0x10 + 4 * bar.index, 2 ** 32 - bar.sizeBytes, true);
    writable[MSIX_CONTROL + 1] = 0xc0;
    const table = new Uint32Array(4 * VECTORS);
    const pending = new Array<boolean>(VECTORS).fill(false);
    this.functions.push({ bars, bytes, powerOn: bytes.slice(), writable, table, pending, msix, sent });
    this.#resetTable(this.functions.at(-1)!);
  }

  // ---- what a guest does, to the machine and to the model ----

  portRead(offset: number, size: number): void {
    const got = this.#access(this.#ports, 0xcf8 + offset, size);
    const allOnes = 2 ** (8 * size) - 1;
    let wanted = allOnes;
    if (offset === 0 && size === 4) wanted = this.#address;
    if (offset >= 4) {
      const at = (this.#address & 0xfc) + offset - 4;
      const bytes = this.#target()?.bytes;
      // The host bridge's own space is not modelled.
      if (bytes === undefined && this.#isBridge()) return;
      if (bytes) wanted = [...bytes.subarray(at, at + size)].reduce((sum, byte, i) => sum + byte * 2 ** (8 * i), 0);
    }
    if (got !== wanted) throw new Error(`read of ${size} at ${offset}: ${hex(got)} instead of ${hex(wanted)}`);
  }

  portWrite(offset: number, size: number, value: number): void {
    this.#access(this.#ports, 0xcf8 + offset, size, value);
    if (offset === 0 && size === 4) this.#address = (value & 0x80ff_fffc) >>> 0;
    const target = offset >= 4 ? this.#target() : undefined;
    if (!target) return;
    const at = (this.#address & 0xfc) + offset - 4;
    for (let i = 0; i < size; i++) {
      const mask = target.writable[at + i]!;
      target.bytes[at + i] = (target.bytes[at + i]! & ~mask) | (Math.floor(value / 2 ** (8 * i)) & mask);
    }
    this.#deliver(target);
  }

  select(slot: number, register: number): void {
    this.portWrite(0, 4, 0x8000_0000 + 0x800 * slot + (register & 0xfc));
  }

  tableWrite(target: Model, offset: number, size: number, value: number): void {
    const gpa = target.bars[1]!.placed;
    if (gpa === undefined) return;
    this.#access(this.#mmio, gpa + offset, size, value);
    if (size !== 4 || offset % 4 !== 0 || offset + 4 > 16 * VECTORS) return;
    target.table[offset / 4] = value;
    this.#deliver(target);
  }

  /** The device has an interrupt. */
  signal(target: Model, vector: number): void {
    const before = target.sent.length;
    target.msix.signal(vector);
    const { enabled, maskedAll } = control(target);
    if (!enabled || vector >= VECTORS) return this.#expectSent(target, before, []);
    if (maskedAll || (target.table[4 * vector + 3]! & 1) !== 0) {
      target.pending[vector] = true;
      seen.kept++;
      return this.#expectSent(target, before, []);
    }
    this.#expectSent(target, before, [vector]);
  }

  reset(): void {
    this.#bridge.reset();
    this.#address = 0;
    for (const target of this.functions) {
      target.bytes.set(target.powerOn);
      this.#resetTable(target);
    }
  }

  // ---- checks ----

  /** What is decoded where, told by who answers. */
  checkPlaces(): void {
    const taken: { gpa: number; end: number }[] = [];
    for (const { bytes, bars } of this.functions) {
      const view = new DataView(bytes.buffer);
      for (const { index, sizeBytes, label, placed } of bars) {
        const gpa = view.getUint32(0x10 + 4 * index, true);
        const end = gpa + sizeBytes;
        const isInside = gpa >= WINDOW && end <= WINDOW + WINDOW_BYTES;
        const isFree = taken.every((other) => end <= other.gpa || gpa >= other.end);
        const decoded = (view.getUint16(4, true) & 2) !== 0 && isInside && isFree;
        if ((view.getUint16(4, true) & 2) !== 0 && isInside && !isFree) seen.clashes++;
        if (placed !== (decoded ? gpa : undefined)) {
          throw new Error(`BAR ${index} is at ${hex(placed ?? -1)}, not ${decoded ? hex(gpa) : 'undecoded'}`);
        }
        if (!decoded) continue;
        taken.push({ gpa, end });
        seen.placed++;
        if (label < 0) continue;
        for (const at of [gpa, end - 1]) this.#expectLabel(at, label);
      }
    }
    this.#expectLabel(RAM_GPA, 0xa1);
    this.#expectLabel(IO_APIC_GPA, 0xa2);
  }

  /** The capability list leads to what it led to, and the table reads as it was written. */
  checkFunction(slot: number, target: Model): void {
    const found: number[] = [];
    for (let at = this.#configByte(slot, 0x34); at !== 0 && found.length < 10; at = this.#configByte(slot, at + 1)) {
      found.push(this.#configByte(slot, at));
    }
    if (found.join() !== '17') throw new Error(`capabilities ${found.join()}`);
    const gpa = target.bars[1]!.placed;
    if (gpa === undefined) return;
    for (const [index, word] of target.table.entries()) {
      const got = this.#access(this.#mmio, gpa + 4 * index, 4);
      if (got !== word) throw new Error(`table word ${index} is ${hex(got)} instead of ${hex(word)}`);
    }
    const bits = target.pending.reduce((sum, bit, vector) => sum + (bit ? 1 << vector : 0), 0);
    const got = this.#access(this.#mmio, gpa + 0x800, 4);
    if (got !== bits) throw new Error(`pending bits ${hex(got)} instead of ${hex(bits)}`);
  }

  #configByte(slot: number, at: number): number {
    this.select(slot, at);
    return this.#access(this.#ports, 0xcfc + (at & 3), 1);
  }

  #isBridge(): boolean {
    return (this.#address & 0x80ff_ff00) >>> 0 === 0x8000_0000;
  }

  #target(): Model | undefined {
    const address = this.#address;
    if (address < 0x8000_0000 || ((address >>> 16) & 0xff) !== 0 || ((address >>> 8) & 7) !== 0) return undefined;
    return this.functions[((address >>> 11) & 31) - 1];
  }

  #resetTable(target: Model): void {
    target.table.fill(0);
    for (let vector = 0; vector < VECTORS; vector++) target.table[4 * vector + 3] = 1;
    target.pending.fill(false);
  }

  /** Masks may have gone: what was pending goes out. */
  #deliver(target: Model): void {
    const { enabled, maskedAll } = control(target);
    const due: number[] = [];
    for (let vector = 0; vector < VECTORS; vector++) {
      if (!enabled || maskedAll || (target.table[4 * vector + 3]! & 1) !== 0 || !target.pending[vector]) continue;
      target.pending[vector] = false;
      due.push(vector);
    }
    this.#expectSent(target, 0, due);
  }

  #expectSent(target: Model, from: number, vectors: readonly number[]): void {
    const sent = target.sent.slice(from);
    target.sent.length = 0;
    if (sent.map(({ vector }) => vector).join() !== vectors.join())
      throw new Error(`sent ${JSON.stringify(sent.map(({ vector }) => vector))}`);
    for (const { vector, address, data } of sent) {
      seen.sent++;
      const [low, high, word] = target.table.subarray(4 * vector);
      if (address !== BigInt(high!) * 2n ** 32n + BigInt(low!) || data !== word) {
        throw new Error(`vector ${vector} sent ${hex(data)} to 0x${address.toString(16)}`);
      }
    }
  }

  #expectLabel(gpa: number, label: number): void {
    const got = this.#access(this.#mmio, gpa, 1);
    if (got !== label) throw new Error(`${hex(got)} answers at ${hex(gpa)} instead of ${hex(label)}`);
  }

  #access(bus: AddressBus, address: number, size: number, value?: number): number {
    const view = this.#view;
    view.setUint32(0, value ?? 0, true);
    const result = bus.access(address, size, 1, value !== undefined, this.#data[size]!);
    if (result) throw new Error('a fault', { cause: result });
    return view.getUint32(0, true) % 2 ** (8 * size);
  }
}

function control({ bytes }: Model): { enabled: boolean; maskedAll: boolean } {
  return { enabled: (bytes[MSIX_CONTROL + 1]! & 0x80) !== 0, maskedAll: (bytes[MSIX_CONTROL + 1]! & 0x40) !== 0 };
}

const hex = (value: number): string => `0x${value.toString(16)}`;

const REGISTERS = [
  0x00, 0x04, 0x04, 0x0c, 0x10, 0x10, 0x14, 0x14, 0x18, 0x30, 0x34, 0x3c, 0x40, 0x40, 0x44, 0x48, 0xfc,
];
const VALUES = [0, 2, 6, 0x402, 0xffff_ffff, 0xc000_0000, 0x8000_0000, 0x8000_0011, 0xffff, 0xfee0_0000];
const ADDRESSES = [
  WINDOW,
  WINDOW + 0x1000,
  WINDOW + 0x4000,
  IO_APIC_GPA - 0x1000,
  IO_APIC_GPA,
  RAM_GPA,
  0,
  0xffff_f000,
];

function execute(seed: number): void {
  const random = new Random(seed);
  const machine = new Machine(random);
  const value = (): number => (random.chance(3) ? random.word() : random.of(random.chance(2) ? VALUES : ADDRESSES));
  for (let step = 8 + random.below(12); step > 0; step--) {
    const slot = 1 + random.below(machine.functions.length);
    const target = machine.functions[slot - 1]!;
    switch (random.below(10)) {
      case 0: {
        const offset = random.below(8);
        const size = random.of([1, 2, 4].filter((bytes) => offset + bytes <= 8));
        if (random.chance(2)) machine.portRead(offset, size);
        else machine.portWrite(offset, size, random.word() % 2 ** (8 * size));
        break;
      }
      case 1:
        // Somebody who is not there.
        machine.portWrite(0, 4, random.chance(2) ? random.word() : 0x8000_0000 + 0x100 * random.below(0x1_0000));
        machine.portRead(4, 4);
        break;
      case 2:
        machine.tableWrite(
          target,
          random.chance(4) ? random.below(0xff0) : 4 * random.below(14),
          random.of([1, 2, 4, 4, 4]),
          random.chance(3) ? random.below(2) : random.word(),
        );
        break;
      case 3:
        machine.signal(target, random.below(VECTORS + 1));
        break;
      case 4:
        if (random.chance(8)) machine.reset();
        // A driver's first steps: masks go, MSI-X on.
        machine.tableWrite(target, 16 * random.below(VECTORS) + 12, 4, random.below(2));
        machine.select(slot, 0x40);
        machine.portWrite(6, 2, random.of([0x8000, 0x8000, 0xc000, 0]));
        break;
      case 5: {
        // Sizing, as kernels do it.
        const index = random.below(2);
        machine.select(slot, 0x10 + 4 * index);
        machine.portWrite(4, 4, 0xffff_ffff);
        machine.portRead(4, 4);
        if (!random.chance(4)) machine.portWrite(4, 4, random.of(ADDRESSES));
        break;
      }
      default: {
        const offset = random.below(4);
        const size = random.chance(3) ? random.of([1, 2].filter((bytes) => offset + bytes <= 4)) : 4;
        machine.select(slot, random.chance(3) ? random.below(256) : random.of(REGISTERS));
        if (random.chance(4)) machine.portRead(4 + (size === 4 ? 0 : offset), size);
        else machine.portWrite(4 + (size === 4 ? 0 : offset), size, value() % 2 ** (8 * size));
      }
    }
    if (random.chance(6)) machine.checkPlaces();
  }
  machine.checkPlaces();
  for (const [index, target] of machine.functions.entries()) machine.checkFunction(index + 1, target);
}

describe('fuzzing', () => {
  it(
    'PCI configuration',
    async () => {
      await fuzz('PCI configuration', execute);
      if (FUZZ_RUNS < 1000) return;
      for (const [name, count] of Object.entries(seen)) expect(count, name).toBeGreaterThan(FUZZ_RUNS / 50);
    },
    FUZZ_TIMEOUT_MS,
  );
});

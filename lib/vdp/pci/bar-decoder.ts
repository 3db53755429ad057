/**
 * Which BAR answers at which address: those of functions with memory decoding on, wholly inside the bridge's window, and
 * where software let two overlap, the one of the lower slot. After each change in a configuration space it brings the
 * bus of memory-mapped registers to that. It first places BARs as firmware would, one behind the other.
 */
import { PciCommand, PciHeader } from '../../abi/pci.js';
import { alignUp } from '../../base/units.js';
import { findOverlap, type Region } from '../../boot/layout.js';
import type { AddressBus, AddressRange } from '../../bus/index.js';
import type { PciBar, PciFunction } from './function.js';

export class BarDecoder {
  readonly #mmio: AddressBus;
  readonly #window: AddressRange;
  readonly #functions: PciFunction[] = [];
  readonly #placed = new Map<PciBar, number>();
  #nextFree: number;
  #clashes = 0;

  constructor(mmio: AddressBus, window: AddressRange) {
    this.#mmio = mmio;
    this.#window = window;
    this.#nextFree = window.first;
  }

  /** Gives the BARs of a function their first addresses and lets them be decoded. @throws RangeError: window full. */
  add(pciFunction: PciFunction): void {
    const { config } = pciFunction;
    for (const { index } of pciFunction.bars) {
      const sizeBytes = config.barSize(index);
      const gpa = alignUp(this.#nextFree, sizeBytes);
      if (gpa + sizeBytes > this.#window.first + this.#window.length) {
        throw new RangeError(`${pciFunction.name}: no room for a BAR of ${sizeBytes} bytes`);
      }
      config.set(PciHeader.BASE_ADDRESS_0 + 4 * index, 4, gpa);
      this.#nextFree = gpa + sizeBytes;
    }
    config.set(PciHeader.COMMAND, 2, PciCommand.MEMORY);
    const update = (): void => this.update();
    config.watch(PciHeader.COMMAND, 2, { onWrite: update });
    for (const { index } of pciFunction.bars) {
      config.watch(PciHeader.BASE_ADDRESS_0 + 4 * index, 4, { onWrite: update });
    }
    this.#functions.push(pciFunction);
    this.update();
  }

  /** Where a BAR is decoded. */
  placeOf(bar: PciBar): number | undefined {
    return this.#placed.get(bar);
  }

  update(): void {
    const wanted = this.#wanted();
    const moved: PciBar[] = [];
    for (const [bar, gpa] of this.#placed) {
      if (wanted.get(bar)?.gpa === gpa) continue;
      this.#mmio.remove(bar.device);
      this.#placed.delete(bar);
      moved.push(bar);
    }
    for (const [bar, { gpa, sizeBytes }] of wanted) {
      if (this.#placed.has(bar)) continue;
      this.#mmio.add({ first: gpa, length: sizeBytes }, bar.device);
      this.#placed.set(bar, gpa);
      if (!moved.includes(bar)) moved.push(bar);
    }
    for (const bar of moved) bar.onPlaced?.(this.#placed.get(bar));
  }

  inspect(): unknown {
    return { clashes: this.#clashes };
  }

  #wanted(): Map<PciBar, { gpa: number; sizeBytes: number }> {
    const wanted = new Map<PciBar, { gpa: number; sizeBytes: number }>();
    const taken: Region[] = [];
    const { first, length } = this.#window;
    for (const { name, config, bars } of this.#functions) {
      if ((config.command & PciCommand.MEMORY) === 0) continue;
      for (const bar of bars) {
        const gpa = config.barAddress(bar.index);
        const sizeBytes = config.barSize(bar.index);
        // The bridge passes on nothing outside its window; RAM and the interrupt controllers stand there.
        if (gpa < first || gpa + sizeBytes > first + length) continue;
        if (findOverlap(taken, gpa, gpa + sizeBytes)) {
          this.#clashes++;
          continue;
        }
        taken.push({ name, start: gpa, end: gpa + sizeBytes });
        wanted.set(bar, { gpa, sizeBytes });
      }
    }
    return wanted;
  }
}

/**
 * INTA of each slot on its way to the IO-APIC: slot n leads to GSI 16 + n mod 8. Slots that share a GSI are wired
 * together: it is high while any of them is. The _PRT of the DSDT says the same (acpi.ts).
 */
import { PciGsi } from '../../abi/pci.js';
import type { InterruptLine } from '../../bus/index.js';

export function gsiOfSlot(slot: number): number {
  return PciGsi.FIRST + (slot % PciGsi.COUNT);
}

export class IntxLines {
  readonly #gsi: (gsi: number) => InterruptLine;
  /** The slots that pull a GSI, and what it was last set to. */
  readonly #pulling = new Map<number, Set<number>>();
  #isClosed = false;

  /** @param gsi an input of the interrupt controller: level, high when asserted. */
  constructor(gsi: (gsi: number) => InterruptLine) {
    this.#gsi = gsi;
  }

  line(slot: number): InterruptLine {
    const gsi = gsiOfSlot(slot);
    const line = this.#gsi(gsi);
    const pulling = this.#pulling.get(gsi) ?? new Set<number>();
    this.#pulling.set(gsi, pulling);
    return {
      set: (high) => {
        const before = pulling.size > 0;
        if (high) pulling.add(slot);
        else pulling.delete(slot);
        const after = pulling.size > 0;
        if (after !== before && !this.#isClosed) line.set(after);
      },
    };
  }

  /** The interrupt controller is about to go. */
  close(): void {
    this.#isClosed = true;
  }

  inspect(): unknown {
    return Object.fromEntries([...this.#pulling].map(([gsi, slots]) => [gsi, [...slots]]));
  }
}

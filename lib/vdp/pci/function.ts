/**
 * What a PCI function is to the host bridge: a configuration space, and devices behind its BARs. The bridge puts these on
 * the bus of memory-mapped registers, and takes them away, as software moves BARs and switches decoding.
 */
import type { SavedPart } from '../../base/saved-state.js';
import type { BusDevice, InterruptLine } from '../../bus/index.js';
import type { ConfigSpace } from './config-space.js';

export interface PciBar {
  readonly index: number;
  /** Its offset 0 is the BAR's first byte. */
  readonly device: BusDevice;
  /** Called when the BAR is decoded at another address than before; undefined: nowhere. */
  onPlaced?(gpa: number | undefined): void;
}

export interface PciFunction {
  /** Unique in a machine. */
  readonly name: string;
  readonly config: ConfigSpace;
  readonly bars: readonly PciBar[];
  /** Back to the power-on state, without the configuration space. */
  reset(): void;
  /** What is behind the BARs; missing where there is nothing. The configuration space is the bridge's to save. */
  saveState?(): SavedPart;
  /** After the configuration space was restored, before its BARs are decoded where it says. */
  restoreState?(part: SavedPart): void;
  inspect(): unknown;
}

/** Makes a function for the slot whose interrupt pin A is `intx`. */
export type MakeFunction = (intx: InterruptLine) => PciFunction;

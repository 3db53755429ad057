/**
 * The PCI root in the DSDT: \_SB.PCI0 with its windows (_CRS) and the wiring of interrupt pins (_PRT), ACPI 6.5,
 * section 6.2.13. Kernels find the bus by it.
 */
import { PciPort } from '../../abi/pci.js';
import type { AcpiContributor } from '../../boot/acpi.js';
import {
  device,
  dwordMemory,
  eisaId,
  io,
  nameDecl,
  packageOp,
  resourceTemplate,
  scope,
  wordBusNumber,
  wordIo,
} from '../../boot/aml.js';
import type { AddressRange } from '../../bus/index.js';
import { gsiOfSlot } from './intx.js';

/** "Any function" in an address of a _PRT. */
const ANY_FUNCTION = 0xffff;
const INTA = 0;
/** Behind the configuration ports. */
const UPPER_PORTS = PciPort.CONFIG_ADDRESS + PciPort.COUNT;

export interface PciRoot {
  /** Where memory BARs may be. */
  readonly window: AddressRange;
  /** Slots with a function that has an interrupt pin. */
  readonly interruptingSlots: () => readonly number[];
}

export function pciRootAcpi(root: PciRoot): AcpiContributor {
  return {
    dsdt: () => [
      scope(
        '\\_SB',
        device(
          'PCI0',
          nameDecl('_HID', eisaId('PNP0A03')),
          nameDecl('_UID', 0),
          nameDecl('_BBN', 0),
          nameDecl(
            '_CRS',
            resourceTemplate(
              wordBusNumber({ first: 0, length: 1 }),
              io(PciPort.CONFIG_ADDRESS, PciPort.COUNT),
              wordIo({ first: 0, length: PciPort.CONFIG_ADDRESS }),
              wordIo({ first: UPPER_PORTS, length: 0x1_0000 - UPPER_PORTS }),
              dwordMemory(root.window),
            ),
          ),
          nameDecl(
            '_PRT',
            packageOp(
              root
                .interruptingSlots()
                .map((slot) => packageOp([slot * 0x1_0000 + ANY_FUNCTION, INTA, 0, gsiOfSlot(slot)])),
            ),
          ),
        ),
      ),
    ],
  };
}

/**
 * What the chipset's devices say of themselves in the DSDT: names, ports and interrupts under \_SB, built with the AML
 * encoder of lib/boot. Fixed hardware (power button, PM timer) is the FADT's; the keyboard controller is left out on
 * purpose, so that Linux does not probe it.
 */
import { GuestChannel } from '../abi/guest-channel.js';
import { Gsi, Port, UART_PORT_COUNT } from '../abi/ports.js';
import type { AcpiContributor } from '../boot/acpi.js';
import { device, eisaId, io, irqNoFlags, nameDecl, resourceTemplate, scope, string, type Aml } from '../boot/aml.js';

/** Present, enabled, shown, working (ACPI 6.5, section 6.3.7). */
const STATUS_PRESENT = 0x0f;
/** Present and working, but not shown to users: QEMU's choice for pvpanic. */
const STATUS_HIDDEN = 0x0b;

/** The devices of a PC that a guest can't find by itself. */
export const chipsetAcpi: AcpiContributor = {
  dsdt: () => [
    scope(
      '\\_SB',
      comPort('COM1', 1, Port.COM1, Gsi.COM1),
      comPort('COM2', 2, Port.COM2, Gsi.COM2),
      device(
        'RTC',
        nameDecl('_HID', eisaId('PNP0B00')),
        nameDecl('_CRS', resourceTemplate(io(Port.RTC_INDEX, 2), irqNoFlags(Gsi.RTC))),
      ),
      device(
        'PEVT',
        nameDecl('_HID', string('QEMU0001')),
        nameDecl('_STA', STATUS_HIDDEN),
        nameDecl('_CRS', resourceTemplate(io(Port.PVPANIC, 1))),
      ),
      // Motherboard resources: ports that nothing else may be given.
      device(
        'MRES',
        nameDecl('_HID', eisaId('PNP0C02')),
        nameDecl('_CRS', resourceTemplate(io(Port.GUEST_CHANNEL, GuestChannel.PORT_COUNT))),
      ),
    ),
  ],
};

function comPort(name: string, uid: number, port: number, irq: number): Aml {
  return device(
    name,
    nameDecl('_HID', eisaId('PNP0501')),
    nameDecl('_UID', uid),
    nameDecl('_STA', STATUS_PRESENT),
    nameDecl('_CRS', resourceTemplate(io(port, UART_PORT_COUNT), irqNoFlags(irq))),
  );
}

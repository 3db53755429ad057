/**
 * The bodies of the static ACPI tables: FADT, FACS and MADT. Pure: options in, bytes out, without the common header
 * that acpi.ts puts before them. The registers themselves are devices of lib/chipset; here the guest learns their places.
 */
import {
  ACPI_NO_C2_LATENCY_US,
  ACPI_NO_C3_LATENCY_US,
  AcpiFacs,
  AcpiFadt,
  AcpiHeader,
  FadtFlag,
  GasAccess,
  GasSpace,
  IapcBootArch,
  IO_APIC_GPA,
  LOCAL_APIC_GPA,
  MADT_LOCAL_APIC_ENABLED,
  MADT_PCAT_COMPAT,
  MadtEntry,
  MAX_XAPIC_ID,
  MpsInti,
} from '../abi/acpi.js';
import { SLEEP_TYPE_S5 } from '../abi/acpi-pm.js';
import { Gsi, GPE0_LENGTH_BYTES, Port } from '../abi/ports.js';
import { ascii, concatBytes, littleEndian } from './bytes.js';

/** Where the registers of ACPI's fixed hardware are, and how they behave. */
export interface FixedHardware {
  /** Event status and enable, 2 bytes each. */
  readonly pm1aEventPort: number;
  readonly pm1aControlPort: number;
  readonly pmTimerPort: number;
  readonly pmTimerBits: 24 | 32;
  /** General-purpose events: status and enable, half each; undefined when there are none. */
  readonly gpe0: { readonly port: number; readonly lengthBytes: number } | undefined;
  readonly sciGsi: number;
  /** SLP_TYP of the soft-off state. */
  readonly sleepTypeS5: number;
  readonly reset: { readonly port: number; readonly value: number };
  /** In PM1's registers, or as a device PNP0C0C that someone contributes. */
  readonly powerButton: 'fixed' | 'device';
  readonly hasI8042: boolean;
}

/** The places of lib/abi/ports.ts. */
export const defaultFixedHardware: FixedHardware = {
  pm1aEventPort: Port.PM1A_EVENT,
  pm1aControlPort: Port.PM1A_CONTROL,
  pmTimerPort: Port.PM_TIMER,
  pmTimerBits: 32,
  gpe0: { port: Port.GPE0, lengthBytes: GPE0_LENGTH_BYTES },
  sciGsi: Gsi.SCI,
  sleepTypeS5: SLEEP_TYPE_S5,
  // Full reset by Intel's reset control register: SYS_RST and RST_CPU.
  reset: { port: Port.RESET_CONTROL, value: 0x06 },
  powerButton: 'fixed',
  // It stands at its ports, for resets; a kernel that is told so probes it for a keyboard, some 60 exits.
  hasI8042: false,
};

/** A Generic Address Structure for ports. */
function portGas(port: number, bits: number, access: number): Uint8Array {
  return concatBytes([GasSpace.SYSTEM_IO, bits, 0, access], littleEndian(port, 8));
}

/** The FADT of revision 6.5. There is no SMI command: the machine is in ACPI mode from the start (4.8.2.5, SCI_EN). */
export function fadt(hardware: FixedHardware, tables: { dsdtGpa: number; facsGpa: number }): Uint8Array {
  const whole = new Uint8Array(AcpiFadt.SIZE);
  const put = (offset: number, widthBytes: number, value: number): void =>
    whole.set(littleEndian(value, widthBytes), offset);
  put(AcpiFadt.FIRMWARE_CTRL, 4, tables.facsGpa);
  put(AcpiFadt.DSDT, 4, tables.dsdtGpa);
  // Of DSDT and X_DSDT the second counts; of the two for the FACS exactly one may be set (5.2.9).
  put(AcpiFadt.X_DSDT, 8, tables.dsdtGpa);
  put(AcpiFadt.SCI_INT, 2, hardware.sciGsi);
  put(AcpiFadt.P_LVL2_LAT, 2, ACPI_NO_C2_LATENCY_US);
  put(AcpiFadt.P_LVL3_LAT, 2, ACPI_NO_C3_LATENCY_US);
  put(AcpiFadt.MINOR_VERSION, 1, 5);

  put(AcpiFadt.PM1A_EVT_BLK, 4, hardware.pm1aEventPort);
  put(AcpiFadt.PM1_EVT_LEN, 1, 4);
  whole.set(portGas(hardware.pm1aEventPort, 32, GasAccess.WORD), AcpiFadt.X_PM1A_EVT_BLK);
  put(AcpiFadt.PM1A_CNT_BLK, 4, hardware.pm1aControlPort);
  put(AcpiFadt.PM1_CNT_LEN, 1, 2);
  whole.set(portGas(hardware.pm1aControlPort, 16, GasAccess.WORD), AcpiFadt.X_PM1A_CNT_BLK);
  put(AcpiFadt.PM_TMR_BLK, 4, hardware.pmTimerPort);
  put(AcpiFadt.PM_TMR_LEN, 1, 4);
  whole.set(portGas(hardware.pmTimerPort, 32, GasAccess.DWORD), AcpiFadt.X_PM_TMR_BLK);
  if (hardware.gpe0) {
    put(AcpiFadt.GPE0_BLK, 4, hardware.gpe0.port);
    put(AcpiFadt.GPE0_BLK_LEN, 1, hardware.gpe0.lengthBytes);
    whole.set(portGas(hardware.gpe0.port, 8 * hardware.gpe0.lengthBytes, GasAccess.BYTE), AcpiFadt.X_GPE0_BLK);
  }
  whole.set(portGas(hardware.reset.port, 8, GasAccess.BYTE), AcpiFadt.RESET_REG);
  put(AcpiFadt.RESET_VALUE, 1, hardware.reset.value);

  put(
    AcpiFadt.IAPC_BOOT_ARCH,
    2,
    IapcBootArch.LEGACY_DEVICES | IapcBootArch.VGA_NOT_PRESENT | (hardware.hasI8042 ? IapcBootArch.I8042 : 0),
  );
  put(
    AcpiFadt.FLAGS,
    4,
    FadtFlag.WBINVD |
      FadtFlag.PROC_C1 |
      FadtFlag.SLP_BUTTON |
      FadtFlag.FIX_RTC |
      FadtFlag.RESET_REG_SUP |
      (hardware.powerButton === 'device' ? FadtFlag.PWR_BUTTON : 0) |
      (hardware.pmTimerBits === 32 ? FadtFlag.TMR_VAL_EXT : 0),
  );
  return whole.slice(AcpiHeader.SIZE);
}

/** The FACS, whole: it has neither the common header nor a checksum. */
export function facs(): Uint8Array {
  const bytes = new Uint8Array(AcpiFacs.SIZE);
  bytes.set(ascii('FACS'), AcpiFacs.SIGNATURE);
  bytes.set(littleEndian(AcpiFacs.SIZE, 4), AcpiFacs.LENGTH);
  bytes[AcpiFacs.VERSION] = 2;
  return bytes;
}

function localApic(apicId: number, uid: number): Uint8Array {
  if (apicId <= MAX_XAPIC_ID && uid <= MAX_XAPIC_ID) {
    return concatBytes([MadtEntry.LOCAL_APIC, 8, uid, apicId], littleEndian(MADT_LOCAL_APIC_ENABLED, 4));
  }
  return concatBytes(
    [MadtEntry.LOCAL_X2APIC, 16, 0, 0],
    littleEndian(apicId, 4),
    littleEndian(MADT_LOCAL_APIC_ENABLED, 4),
    littleEndian(uid, 4),
  );
}

function override(isaIrq: number, gsi: number, flags: number): Uint8Array {
  return concatBytes(
    [MadtEntry.INTERRUPT_SOURCE_OVERRIDE, 10, 0, isaIrq],
    littleEndian(gsi, 4),
    littleEndian(flags, 2),
  );
}

/** The MADT: processors, KVM's IO-APIC with GSIs from 0, IRQ 0 at GSI 2, the SCI level and active high, NMI at LINT1. */
export function madt(apicIds: readonly number[], sciGsi: number): Uint8Array {
  const processors = apicIds.map((apicId, index) => localApic(apicId, index));
  const hasX2apic = processors.some((entry) => entry[0] === MadtEntry.LOCAL_X2APIC);
  return concatBytes(
    littleEndian(LOCAL_APIC_GPA, 4),
    littleEndian(MADT_PCAT_COMPAT, 4),
    ...processors,
    concatBytes([MadtEntry.IO_APIC, 12, 0, 0], littleEndian(IO_APIC_GPA, 4), littleEndian(0, 4)),
    override(0, 2, MpsInti.CONFORMS),
    override(sciGsi, sciGsi, MpsInti.ACTIVE_HIGH | MpsInti.LEVEL),
    [MadtEntry.LOCAL_APIC_NMI, 6, 0xff, MpsInti.CONFORMS, 0, 1],
    hasX2apic
      ? concatBytes([MadtEntry.LOCAL_X2APIC_NMI, 12], littleEndian(0, 2), littleEndian(0xffff_ffff, 4), [1, 0, 0, 0])
      : [],
  );
}

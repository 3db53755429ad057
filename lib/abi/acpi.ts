/**
 * Layouts and flags of the static ACPI tables. Source: ACPI 6.5, chapter 5: RSDP (5.2.5.3), header (5.2.6),
 * FADT (5.2.9), FACS (5.2.10), MADT (5.2.12), Generic Address Structure (5.2.3.2).
 */

/** Offsets in a table's header, and its size. */
export const AcpiHeader = {
  SIGNATURE: 0,
  LENGTH: 4,
  REVISION: 8,
  CHECKSUM: 9,
  OEM_ID: 10,
  OEM_TABLE_ID: 16,
  OEM_REVISION: 24,
  CREATOR_ID: 28,
  CREATOR_REVISION: 32,
  SIZE: 36,
} as const;

/** Offsets in the RSDP of revision 2. */
export const AcpiRsdp = {
  SIGNATURE: 0,
  CHECKSUM: 8,
  OEM_ID: 9,
  REVISION: 15,
  RSDT_ADDRESS: 16,
  LENGTH: 20,
  XSDT_ADDRESS: 24,
  EXTENDED_CHECKSUM: 32,
  SIZE: 36,
  /** Bytes that CHECKSUM covers: the RSDP of revision 0. */
  SIZE_REVISION_0: 20,
} as const;

/** Offsets in the FADT of revision 6. */
export const AcpiFadt = {
  FIRMWARE_CTRL: 36,
  DSDT: 40,
  SCI_INT: 46,
  PM1A_EVT_BLK: 56,
  PM1A_CNT_BLK: 64,
  PM_TMR_BLK: 76,
  GPE0_BLK: 80,
  PM1_EVT_LEN: 88,
  PM1_CNT_LEN: 89,
  PM_TMR_LEN: 91,
  GPE0_BLK_LEN: 92,
  P_LVL2_LAT: 96,
  P_LVL3_LAT: 98,
  CENTURY: 108,
  IAPC_BOOT_ARCH: 109,
  FLAGS: 112,
  RESET_REG: 116,
  RESET_VALUE: 128,
  MINOR_VERSION: 131,
  X_DSDT: 140,
  X_PM1A_EVT_BLK: 148,
  X_PM1A_CNT_BLK: 172,
  X_PM_TMR_BLK: 208,
  X_GPE0_BLK: 220,
  HYPERVISOR_VENDOR: 268,
  SIZE: 276,
} as const;

/** Latencies above these say that a C-state is not there (5.2.9, P_LVL2_LAT and P_LVL3_LAT). */
export const ACPI_NO_C2_LATENCY_US = 101;
export const ACPI_NO_C3_LATENCY_US = 1001;

export const FadtFlag = {
  WBINVD: 1 << 0,
  PROC_C1: 1 << 2,
  /** Set: the power button is a device in the namespace. Clear: it is fixed hardware in PM1. */
  PWR_BUTTON: 1 << 4,
  /** Set: there is no fixed sleep button. */
  SLP_BUTTON: 1 << 5,
  /** Set: RTC wake is not in fixed registers. */
  FIX_RTC: 1 << 6,
  /** The PM timer has 32 bits instead of 24. */
  TMR_VAL_EXT: 1 << 8,
  RESET_REG_SUP: 1 << 10,
} as const;

/** IAPC_BOOT_ARCH (5.2.9.3). */
export const IapcBootArch = {
  LEGACY_DEVICES: 1 << 0,
  I8042: 1 << 1,
  VGA_NOT_PRESENT: 1 << 2,
} as const;

/** Generic Address Structure, 12 bytes. */
export const AcpiGas = { SPACE: 0, BIT_WIDTH: 1, BIT_OFFSET: 2, ACCESS_SIZE: 3, ADDRESS: 4, SIZE: 12 } as const;
export const GasSpace = { SYSTEM_MEMORY: 0, SYSTEM_IO: 1 } as const;
export const GasAccess = { BYTE: 1, WORD: 2, DWORD: 3 } as const;

/** Offsets in the FACS, which has no ordinary header and no checksum. */
export const AcpiFacs = { SIGNATURE: 0, LENGTH: 4, VERSION: 32, SIZE: 64 } as const;

/** Interrupt controller structures of the MADT (5.2.12.2 and later). */
export const MadtEntry = {
  LOCAL_APIC: 0,
  IO_APIC: 1,
  INTERRUPT_SOURCE_OVERRIDE: 2,
  LOCAL_APIC_NMI: 4,
  LOCAL_X2APIC: 9,
  LOCAL_X2APIC_NMI: 10,
} as const;

/** MADT flags: the machine also has two 8259s. */
export const MADT_PCAT_COMPAT = 1;
/** Flags of a local APIC: the processor can be used. */
export const MADT_LOCAL_APIC_ENABLED = 1;

/** MPS INTI flags of overrides and NMI sources (table 5.26). */
export const MpsInti = {
  CONFORMS: 0,
  ACTIVE_HIGH: 0b01,
  EDGE: 0b01_00,
  LEVEL: 0b11_00,
} as const;

/** Where every x86 machine has them: LOCAL_APIC is the reset value of IA32_APIC_BASE. */
export const LOCAL_APIC_GPA = 0xfee0_0000;
export const IO_APIC_GPA = 0xfec0_0000;
/** The largest id that an entry of 8 bits can carry; 255 addresses all. */
export const MAX_XAPIC_ID = 254;

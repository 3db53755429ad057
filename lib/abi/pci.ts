/**
 * PCI as software sees it: configuration ports, the header of a function (type 0), capabilities, MSI-X.
 * Sources: PCI Local Bus Specification 3.0, sections 3.2.2.3.2 (configuration mechanism), 6.1 to 6.3 (header),
 * 6.7 (capabilities), 6.8.2 (MSI-X); names as in linux/pci_regs.h without the PCI_ prefix.
 */

/** CONFIG_ADDRESS and CONFIG_DATA, four ports each (3.2.2.3.2). */
export const PciPort = { CONFIG_ADDRESS: 0xcf8, CONFIG_DATA: 0xcfc, COUNT: 8 } as const;

/** Bits of CONFIG_ADDRESS; bits 1 and 0 read as 0. */
export const ConfigAddress = {
  ENABLE: 0x8000_0000,
  /** What of it can be written. */
  WRITABLE: 0x80ff_fffc,
} as const;

/** A bus has so many devices, a device so many functions. */
export const DEVICES_PER_BUS = 32;

/** Bytes of configuration space without PCI Express. */
export const CONFIG_SPACE_BYTES = 256;

/** Offsets in the header of a function, type 0 (6.1). */
export const PciHeader = {
  VENDOR_ID: 0x00,
  DEVICE_ID: 0x02,
  COMMAND: 0x04,
  STATUS: 0x06,
  REVISION_ID: 0x08,
  /** Interface, subclass and class, a byte each. */
  CLASS_CODE: 0x09,
  CACHE_LINE_SIZE: 0x0c,
  LATENCY_TIMER: 0x0d,
  HEADER_TYPE: 0x0e,
  BASE_ADDRESS_0: 0x10,
  SUBSYSTEM_VENDOR_ID: 0x2c,
  SUBSYSTEM_ID: 0x2e,
  CAPABILITY_LIST: 0x34,
  INTERRUPT_LINE: 0x3c,
  INTERRUPT_PIN: 0x3d,
  /** The first byte behind the header. */
  END: 0x40,
} as const;

/** Base address registers of a type 0 header. */
export const BAR_COUNT = 6;

/** Command register (6.2.2). */
export const PciCommand = {
  IO: 0x0001,
  MEMORY: 0x0002,
  MASTER: 0x0004,
  PARITY: 0x0040,
  SERR: 0x0100,
  INTX_DISABLE: 0x0400,
} as const;

/** Status register (6.2.3). */
export const PciStatus = { INTERRUPT: 0x0008, CAP_LIST: 0x0010 } as const;

/** Class, subclass and interface as one number (appendix D). */
export const PciClass = { HOST_BRIDGE: 0x06_00_00 } as const;

/** Capability identifiers (appendix H). */
export const PciCapId = { VENDOR: 0x09, MSIX: 0x11 } as const;

/** The MSI-X capability (6.8.2.3 to 6.8.2.5): offsets from its start, and bits of its message control. */
export const MsixCap = {
  SIZE: 12,
  CONTROL: 2,
  TABLE: 4,
  PENDING: 8,
  CONTROL_ENABLE: 0x8000,
  CONTROL_MASK_ALL: 0x4000,
} as const;

/** An entry of the MSI-X table (6.8.2.6 to 6.8.2.9). */
export const MsixEntry = {
  SIZE: 16,
  ADDRESS_LOW: 0,
  ADDRESS_HIGH: 4,
  DATA: 8,
  VECTOR_CONTROL: 12,
  /** Of vector control; set after reset. */
  MASKED: 1,
} as const;

/** The host bridge of this machine: Red Hat's neutral one, which no kernel has a workaround for (pci.ids). */
export const HostBridgeId = { VENDOR: 0x1b36, DEVICE: 0x0008 } as const;

/** Messages to local APICs: bits 31 to 20 of a message's address (Intel SDM 3A, 11.11.1). */
export const MSI_ADDRESS_BASE = 0xfee;

/** GSIs of INTx: the IO-APIC's pins beyond those of ISA. */
export const PciGsi = { FIRST: 16, COUNT: 8 } as const;

/**
 * Opcodes of the ACPI Machine Language and tags of its resource descriptors.
 * Source: ACPI 6.5, section 20.3 (byte values of AML) and section 6.4 (resource data types).
 * Numbers only: lib/boot/aml.ts puts them together.
 */

/** Opcodes of one byte; those behind EXT_PREFIX stand in AmlExtOp. */
export const AmlOp = {
  ZERO: 0x00,
  ONE: 0x01,
  NAME: 0x08,
  BYTE_PREFIX: 0x0a,
  WORD_PREFIX: 0x0b,
  DWORD_PREFIX: 0x0c,
  STRING_PREFIX: 0x0d,
  QWORD_PREFIX: 0x0e,
  SCOPE: 0x10,
  BUFFER: 0x11,
  PACKAGE: 0x12,
  METHOD: 0x14,
  DUAL_NAME_PREFIX: 0x2e,
  MULTI_NAME_PREFIX: 0x2f,
  EXT_PREFIX: 0x5b,
  LOCAL0: 0x60,
  ARG0: 0x68,
  STORE: 0x70,
  ADD: 0x72,
  SUBTRACT: 0x74,
  SHIFT_LEFT: 0x79,
  SHIFT_RIGHT: 0x7a,
  AND: 0x7b,
  OR: 0x7d,
  NOTIFY: 0x86,
  CREATE_DWORD_FIELD: 0x8a,
  LAND: 0x90,
  LOR: 0x91,
  LNOT: 0x92,
  LEQUAL: 0x93,
  LGREATER: 0x94,
  LLESS: 0x95,
  IF: 0xa0,
  ELSE: 0xa1,
  WHILE: 0xa2,
  RETURN: 0xa4,
  ONES: 0xff,
} as const;

/** Opcodes that follow EXT_PREFIX. */
export const AmlExtOp = {
  MUTEX: 0x01,
  ACQUIRE: 0x23,
  RELEASE: 0x27,
  OPERATION_REGION: 0x80,
  FIELD: 0x81,
  DEVICE: 0x82,
} as const;

/** RegionSpace of an operation region. */
export const AmlRegionSpace = {
  SYSTEM_MEMORY: 0x00,
  SYSTEM_IO: 0x01,
  PCI_CONFIG: 0x02,
} as const;

/** AccessType of a field (bits 0 to 3 of FieldFlags). */
export const AmlFieldAccess = {
  ANY: 0,
  BYTE: 1,
  WORD: 2,
  DWORD: 3,
  QWORD: 4,
} as const;

/** UpdateRule of a field (bits 5 and 6 of FieldFlags). */
export const AmlFieldUpdate = {
  PRESERVE: 0,
  WRITE_AS_ONES: 1,
  WRITE_AS_ZEROS: 2,
} as const;

/** Whole tag bytes of resource descriptors; small ones (6.4.2) carry their length in bits 0 to 2. */
export const ResourceTag = {
  IRQ_NO_FLAGS: 0x22,
  IRQ: 0x23,
  IO_PORT: 0x47,
  END: 0x79,
  MEMORY32_FIXED: 0x86,
  DWORD_ADDRESS_SPACE: 0x87,
  WORD_ADDRESS_SPACE: 0x88,
  EXTENDED_INTERRUPT: 0x89,
  QWORD_ADDRESS_SPACE: 0x8a,
} as const;

/** Resource type of an address space descriptor (6.4.3.5). */
export const AddressSpaceType = { MEMORY: 0, IO: 1, BUS_NUMBER: 2 } as const;

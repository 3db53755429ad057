/**
 * The qcow2 image format, versions 2 and 3. Source: QEMU, docs/interop/qcow2.rst (formerly qcow2.txt); the section is
 * named at each group. All numbers of the format are big endian.
 */

/** "Header": 'Q' 'F' 'I' 0xfb. */
export const QCOW2_MAGIC = 0x514649fb;

/** "Header": offsets of its fields; from INCOMPATIBLE on in version 3 only. */
export const Qcow2Header = {
  MAGIC: 0,
  VERSION: 4,
  BACKING_OFFSET: 8,
  BACKING_SIZE: 16,
  CLUSTER_BITS: 20,
  SIZE: 24,
  CRYPT_METHOD: 32,
  L1_SIZE: 36,
  L1_OFFSET: 40,
  REFCOUNT_OFFSET: 48,
  REFCOUNT_CLUSTERS: 56,
  NB_SNAPSHOTS: 60,
  SNAPSHOTS_OFFSET: 64,
  V2_LENGTH: 72,
  INCOMPATIBLE: 72,
  COMPATIBLE: 80,
  AUTOCLEAR: 88,
  REFCOUNT_ORDER: 96,
  HEADER_LENGTH: 100,
  V3_LENGTH: 104,
  COMPRESSION_TYPE: 104,
} as const;

/** "Header", incompatible_features: bit numbers. */
export const Qcow2Incompatible = {
  DIRTY: 0,
  CORRUPT: 1,
  EXTERNAL_DATA: 2,
  COMPRESSION_TYPE: 3,
  EXTENDED_L2: 4,
} as const;

/** "Header extensions": types. */
export const Qcow2Extension = {
  END: 0,
  BACKING_FORMAT: 0xe2792aca,
  FEATURE_NAMES: 0x6803f857,
  BITMAPS: 0x23852875,
  ENCRYPTION: 0x0537be77,
  EXTERNAL_DATA: 0x44415441,
} as const;

/** "Feature name table": 1 byte type, 1 byte bit number, 46 bytes name. */
export const QCOW2_FEATURE_ENTRY_BYTES = 48;
export const QCOW2_FEATURE_INCOMPATIBLE = 0;

/** "Header": limits of the format, and QEMU's limits named there, which we share so that each reads the other's images. */
export const QCOW2_MIN_CLUSTER_BITS = 9;
export const QCOW2_MAX_CLUSTER_BITS = 21;
export const QCOW2_MAX_BACKING_NAME_BYTES = 1023;
export const QCOW2_MAX_L1_BYTES = 32 * 1024 * 1024;
/** "Host cluster management". */
export const QCOW2_MAX_REFCOUNT_TABLE_BYTES = 8 * 1024 * 1024;
export const QCOW2_MAX_REFCOUNT_ORDER = 6;

/** "Cluster mapping": L1, L2 and refcount table entries have 64 bits. */
export const QCOW2_ENTRY_BYTES = 8;

/** The upper 32 bits of L1 and L2 entries: bit 63, bit 62, bits 32 to 55 of an offset, and what is reserved. */
export const Qcow2EntryHigh = {
  COPIED: 0x80000000,
  COMPRESSED: 0x40000000,
  OFFSET: 0x00ffffff,
  L1_RESERVED: 0x7f000000,
  L2_RESERVED: 0x3f000000,
} as const;

/** The lower 32 bits: bits 9 to 31 of an offset, the zero flag of an L2 entry, and what is reserved. */
export const Qcow2EntryLow = {
  OFFSET: 0xfffffe00,
  ZERO: 0x00000001,
  L1_RESERVED: 0x000001ff,
  L2_RESERVED: 0x000001fe,
} as const;

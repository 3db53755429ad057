/**
 * Virtio 1.2 as devices and queues see it: split virtqueues (2.7), network (5.1), block (5.2), console (5.3) and entropy
 * (5.4); names as in the specification and linux/virtio_*.h. What the transport deals with stands in virtio-pci.ts.
 */

/** Device ids (5). */
export const VirtioDeviceId = { NETWORK: 1, BLOCK: 2, CONSOLE: 3, ENTROPY: 4 } as const;

/** Flags of struct virtq_desc (2.7.5). */
export const VirtqDescFlag = { NEXT: 1, WRITE: 2, INDIRECT: 4 } as const;

/** struct virtq_desc: le64 addr, le32 len, le16 flags, le16 next (2.7.5). */
export const VIRTQ_DESC_BYTES = 16;
/** struct virtq_used_elem: le32 id, le32 len (2.7.8). */
export const VIRTQ_USED_ELEM_BYTES = 8;

/** The greatest size of a split queue (2.7). */
export const VIRTQ_MAX_SIZE = 32768;
/** Alignment of the three parts (2.7). */
export const VirtqAlign = { DESCRIPTORS: 16, AVAILABLE: 2, USED: 4 } as const;
/** The bytes of a descriptor chain in total (2.7.5.2). */
export const VIRTQ_MAX_CHAIN_BYTES = 2 ** 32;

/** virtq_avail.flags: the driver wants no interrupt (2.7.6). */
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
/** virtq_used.flags: the device wants no notification (2.7.8). */
export const VIRTQ_USED_F_NO_NOTIFY = 1;

/** Features of the block device (5.2.3). */
export const VirtioBlkFeature = {
  SIZE_MAX: 1n << 1n,
  SEG_MAX: 1n << 2n,
  GEOMETRY: 1n << 4n,
  RO: 1n << 5n,
  BLK_SIZE: 1n << 6n,
  FLUSH: 1n << 9n,
  TOPOLOGY: 1n << 10n,
  CONFIG_WCE: 1n << 11n,
  MQ: 1n << 12n,
  DISCARD: 1n << 13n,
  WRITE_ZEROES: 1n << 14n,
} as const;

/** struct virtio_blk_config: offsets (5.2.4). SIZE is up to and with write_zeroes_may_unmap and its padding. */
export const VirtioBlkConfig = {
  CAPACITY: 0,
  SIZE_MAX: 8,
  SEG_MAX: 12,
  BLK_SIZE: 20,
  PHYSICAL_BLOCK_EXP: 24,
  ALIGNMENT_OFFSET: 25,
  MIN_IO_SIZE: 26,
  OPT_IO_SIZE: 28,
  WRITEBACK: 32,
  NUM_QUEUES: 34,
  MAX_DISCARD_SECTORS: 36,
  MAX_DISCARD_SEG: 40,
  DISCARD_SECTOR_ALIGNMENT: 44,
  MAX_WRITE_ZEROES_SECTORS: 48,
  MAX_WRITE_ZEROES_SEG: 52,
  WRITE_ZEROES_MAY_UNMAP: 56,
  SIZE: 60,
} as const;

/** Types of struct virtio_blk_req (5.2.6). */
export const VirtioBlkType = {
  IN: 0,
  OUT: 1,
  FLUSH: 4,
  GET_ID: 8,
  DISCARD: 11,
  WRITE_ZEROES: 13,
} as const;

/** struct virtio_blk_req: le32 type, le32 reserved, le64 sector; then data, then the status byte (5.2.6). */
export const VIRTIO_BLK_HEADER_BYTES = 16;
/** The device's id string (5.2.6). */
export const VIRTIO_BLK_ID_BYTES = 20;
/** struct virtio_blk_discard_write_zeroes: le64 sector, le32 num_sectors, le32 flags (5.2.6). */
export const VIRTIO_BLK_RANGE_BYTES = 16;
/** flags.unmap of struct virtio_blk_discard_write_zeroes (5.2.6). */
export const VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP = 1;

/** The status byte (5.2.6). */
export const VirtioBlkStatus = { OK: 0, IOERR: 1, UNSUPP: 2 } as const;

/** Features of the console device (5.3.3). */
export const VirtioConsoleFeature = {
  SIZE: 1n << 0n,
  MULTIPORT: 1n << 1n,
  EMERG_WRITE: 1n << 2n,
} as const;

/** struct virtio_console_config: offsets (5.3.4). */
export const VirtioConsoleConfig = { COLS: 0, ROWS: 2, MAX_NR_PORTS: 4, EMERG_WR: 8, SIZE: 12 } as const;

/** struct virtio_console_control: le32 id, le16 event, le16 value (5.3.6.2). */
export const VIRTIO_CONSOLE_CONTROL_BYTES = 8;

/** Events of struct virtio_console_control (5.3.6.2). */
export const VirtioConsoleEvent = {
  DEVICE_READY: 0,
  PORT_ADD: 1,
  PORT_REMOVE: 2,
  PORT_READY: 3,
  CONSOLE_PORT: 4,
  RESIZE: 5,
  PORT_OPEN: 6,
  PORT_NAME: 7,
} as const;

/** Features of the network device (5.1.3). */
export const VirtioNetFeature = {
  CSUM: 1n << 0n,
  GUEST_CSUM: 1n << 1n,
  CTRL_GUEST_OFFLOADS: 1n << 2n,
  MTU: 1n << 3n,
  MAC: 1n << 5n,
  GUEST_TSO4: 1n << 7n,
  GUEST_TSO6: 1n << 8n,
  GUEST_ECN: 1n << 9n,
  HOST_TSO4: 1n << 11n,
  HOST_TSO6: 1n << 12n,
  HOST_ECN: 1n << 13n,
  MRG_RXBUF: 1n << 15n,
  STATUS: 1n << 16n,
  CTRL_VQ: 1n << 17n,
  CTRL_RX: 1n << 18n,
  CTRL_RX_EXTRA: 1n << 20n,
  GUEST_ANNOUNCE: 1n << 21n,
  CTRL_MAC_ADDR: 1n << 23n,
} as const;

/** struct virtio_net_config: offsets (5.1.4). SIZE is up to and with mtu. */
export const VirtioNetConfig = { MAC: 0, STATUS: 6, MAX_VIRTQUEUE_PAIRS: 8, MTU: 10, SIZE: 12 } as const;
/** virtio_net_config.status (5.1.4). */
export const VIRTIO_NET_S_LINK_UP = 1;
export const VIRTIO_NET_S_ANNOUNCE = 2;

/** struct virtio_net_hdr: offsets, all of it little endian (5.1.6). */
export const VirtioNetHdr = {
  FLAGS: 0,
  GSO_TYPE: 1,
  HDR_LEN: 2,
  GSO_SIZE: 4,
  CSUM_START: 6,
  CSUM_OFFSET: 8,
  NUM_BUFFERS: 10,
  SIZE: 12,
} as const;
export const VirtioNetHdrFlag = { NEEDS_CSUM: 1, DATA_VALID: 2 } as const;
export const VirtioNetGso = { NONE: 0, TCPV4: 1, TCPV6: 4, ECN: 0x80 } as const;

/** Classes and commands of the control queue (5.1.6.5), and its answers. */
export const VirtioNetCtrl = {
  RX: 0,
  RX_PROMISC: 0,
  RX_ALLMULTI: 1,
  RX_ALLUNI: 2,
  RX_NOMULTI: 3,
  RX_NOUNI: 4,
  RX_NOBCAST: 5,
  MAC: 1,
  MAC_TABLE_SET: 0,
  MAC_ADDR_SET: 1,
  ANNOUNCE: 3,
  ANNOUNCE_ACK: 0,
  GUEST_OFFLOADS: 5,
  GUEST_OFFLOADS_SET: 0,
} as const;
export const VirtioNetAck = { OK: 0, ERR: 1 } as const;

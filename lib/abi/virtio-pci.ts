/**
 * Virtio over PCI, modern (non-transitional) devices: virtio 1.2, section 4.1, names as in linux/virtio_pci.h; and
 * what every transport deals with: device status (2.1) and the feature bits that are the transport's (6).
 */

/** Vendor of all virtio devices, and what is added to the virtio device id (4.1.2). */
export const VIRTIO_PCI_VENDOR_ID = 0x1af4;
export const VIRTIO_PCI_DEVICE_ID_BASE = 0x1040;
/** From 1 on a driver knows that there is no legacy interface (4.1.2.1). */
export const VIRTIO_PCI_REVISION = 1;

/** The kinds of structures that vendor capabilities point at (4.1.4). */
export const VirtioPciCapType = { COMMON: 1, NOTIFY: 2, ISR: 3, DEVICE: 4, PCI: 5 } as const;

/** struct virtio_pci_cap: offsets from the start of the capability (4.1.4). */
export const VirtioPciCap = {
  CFG_TYPE: 3,
  BAR: 4,
  OFFSET: 8,
  LENGTH: 12,
  SIZE: 16,
  /** notify_off_multiplier of VirtioPciCapType.NOTIFY. */
  NOTIFY_MULTIPLIER: 16,
  /** pci_cfg_data of VirtioPciCapType.PCI. */
  PCI_CFG_DATA: 16,
  /** Both have four more bytes. */
  SIZE_EXTENDED: 20,
} as const;

/** struct virtio_pci_common_cfg: offsets (4.1.4.3). Queue addresses are two halves of 32 bits each. */
export const CommonCfg = {
  DEVICE_FEATURE_SELECT: 0x00,
  DEVICE_FEATURE: 0x04,
  DRIVER_FEATURE_SELECT: 0x08,
  DRIVER_FEATURE: 0x0c,
  CONFIG_MSIX_VECTOR: 0x10,
  NUM_QUEUES: 0x12,
  DEVICE_STATUS: 0x14,
  CONFIG_GENERATION: 0x15,
  QUEUE_SELECT: 0x16,
  QUEUE_SIZE: 0x18,
  QUEUE_MSIX_VECTOR: 0x1a,
  QUEUE_ENABLE: 0x1c,
  QUEUE_NOTIFY_OFF: 0x1e,
  QUEUE_DESC: 0x20,
  QUEUE_DRIVER: 0x28,
  QUEUE_DEVICE: 0x30,
  /** Without the fields of VIRTIO_F_NOTIF_CONFIG_DATA and VIRTIO_F_RING_RESET, which are not offered. */
  SIZE: 0x38,
} as const;

/** An event that no MSI-X vector is given to (4.1.5.1.2). */
export const VIRTIO_MSI_NO_VECTOR = 0xffff;

/** ISR status (4.1.4.5). */
export const VirtioIsr = { QUEUE: 1, CONFIG: 2 } as const;

/** Device status (2.1). */
export const VirtioStatus = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  DEVICE_NEEDS_RESET: 0x40,
  FAILED: 0x80,
} as const;

/** Feature bits that transport and queues are responsible for (6). */
export const VirtioTransportFeature = {
  RING_INDIRECT_DESC: 1n << 28n,
  RING_EVENT_IDX: 1n << 29n,
  VERSION_1: 1n << 32n,
} as const;

/**
 * Tap interfaces of Linux: flags of linux/if_tun.h and linux/if.h. The header in front of their frames is virtio's
 * (VirtioNetHdr of virtio.ts), in the host's byte order.
 */

/** TUNSETIFF, ifr_flags (linux/if_tun.h). */
export const TunFlag = { TAP: 0x0002, MULTI_QUEUE: 0x0100, NO_PI: 0x1000, VNET_HDR: 0x4000 } as const;

/** TUNSETOFFLOAD (linux/if_tun.h): what a reader takes. */
export const TunOffload = { CSUM: 0x01, TSO4: 0x02, TSO6: 0x04, TSO_ECN: 0x08 } as const;

/** The header's size while nobody has asked for another: struct virtio_net_hdr, without num_buffers. */
export const TUN_DEFAULT_HEADER_BYTES = 10;

/** SIOCGIFFLAGS (linux/if.h). */
export const InterfaceFlag = { UP: 0x1 } as const;

/** IFNAMSIZ with its closing zero (linux/if.h). */
export const INTERFACE_NAME_MAX_BYTES = 15;

/**
 * The guest channel's register map: a paravirtual byte stream between the guest agent and the host, in port space. The
 * device is chipset/channel-port.ts, the driver is guest/agent.c; both keep to this table.
 *
 * Base: port 0x5A0, 32 ports. Every register but DATA is read and written as 32 bits at its own offset.
 *
 * | offset | name     | access | meaning                                                                            |
 * | ------ | -------- | ------ | ---------------------------------------------------------------------------------- |
 * | 0x00   | ID       | R      | 0x56495643 ('VIVC'). Anything else: no channel here                                |
 * | 0x04   | VERSION  | R      | bits 0-15: 1. Bit 16: transfers through memory are offered (COMMAND 2 and 3)       |
 * | 0x08   | READABLE | R      | bytes that wait for the guest. Having answered 0 the device owes a ring            |
 * | 0x0C   | WRITABLE | R      | bytes that the guest may send now. Having answered 0 the device owes a ring        |
 * | 0x10   | DATA     | RW     | the stream: `in`/`out` of 1, 2 or 4 bytes, little endian, and `rep ins`/`rep outs` |
 * | 0x14   | PAGE     | W      | guest page frame number (gpa / 4096) of the transfer page                          |
 * | 0x18   | COMMAND  | W      | 1 OPEN, 2 RECEIVE, 3 SEND; done when the `out` is                                  |
 *
 * OPEN starts a session: what waits in either direction is dropped, and the host is told. An agent writes it first.
 *
 * A cut line: in a machine that was restored from a snapshot the session's host end is gone. READABLE and WRITABLE are then
 * 0xFFFFFFFF, in the transfer page too, nothing moves, and the device has rung once; until the next OPEN.
 *
 * DATA: read at most READABLE and write at most WRITABLE bytes. Reading past the end gives zeros, bytes written past
 * the end are lost; both are counted as the guest's mistake. `rep ins` moves up to 1 KiB an exit; KVM's emulator leaves
 * the guest once for *every element* of `rep outs`, so DATA is for small writes and for agents that can't find physical
 * addresses. Bulk goes through memory:
 *
 * RECEIVE (host to guest) and SEND (guest to host) use the transfer page, one page of guest RAM that the guest owns:
 *
 * | byte      | type | by     | meaning                                                                             |
 * | --------- | ---- | ------ | ----------------------------------------------------------------------------------- |
 * | 0         | u32  | guest  | number of segments, 1 to 255                                                        |
 * | 4         | u32  | device | bytes moved, at most the segments' sum; 0xFFFFFFFF: refused, nothing moved          |
 * | 8         | u32  | device | READABLE after the transfer (a 0 here makes the device owe a ring, as the register) |
 * | 12        | u32  | device | WRITABLE after the transfer (likewise)                                              |
 * | 16 + 16 i | u64  | guest  | segment i: guest physical address                                                   |
 * | 24 + 16 i | u32  | guest  | segment i: length in bytes                                                          |
 * | 28 + 16 i | u32  | guest  | 0                                                                                   |
 *
 * A segment outside guest RAM, a count of 0 or over 255, a sum over 16 MiB: refused. A transfer moves what there is:
 * fewer bytes than asked is no error. When the transfer page itself is not in RAM nothing is written, so a guest puts
 * 0xFFFFFFFF at byte 4 first. All numbers are little endian. An agent in user space finds physical addresses of locked
 * pages in /proc/self/pagemap (compaction moves locked pages unless vm.compact_unevictable_allowed is 0).
 *
 * The ring: the device owes one for a direction from the moment it told the guest 0 for it (by register or in the
 * transfer page). When bytes arrive, or room returns, it rings once: the machine puts the byte RING_BYTE into the
 * receiver of COM2 (ttyS1), so that an agent in user space sleeps in poll() on that tty. After a ring the agent looks
 * at both directions. Rings may come without need; one that is owed is never left out.
 */

export const GuestChannel = {
  ID: 0x00,
  VERSION: 0x04,
  READABLE: 0x08,
  WRITABLE: 0x0c,
  DATA: 0x10,
  PAGE: 0x14,
  COMMAND: 0x18,
  /** Ports taken. */
  PORT_COUNT: 0x20,
} as const;

export const GuestChannelValue = {
  /** 'VIVC' in ASCII, most significant byte first. */
  ID: 0x56495643,
  VERSION: 1,
  FEATURE_MEMORY: 1 << 16,
  COMMAND_OPEN: 1,
  COMMAND_RECEIVE: 2,
  COMMAND_SEND: 3,
  REFUSED: 0xffffffff,
  /** READABLE and WRITABLE, after the far end of the session has gone. */
  CUT: 0xffffffff,
  MAX_SEGMENTS: 255,
  MAX_TRANSFER_BYTES: 16 * 1024 * 1024,
  /** Put into COM2's receiver when the device rings. */
  RING_BYTE: 0x07,
} as const;

/** Byte offsets in the transfer page. */
export const TransferPage = {
  COUNT: 0,
  MOVED: 4,
  READABLE: 8,
  WRITABLE: 12,
  SEGMENTS: 16,
  SEGMENT_STRIDE: 16,
  SEGMENT_GPA: 0,
  SEGMENT_LENGTH: 8,
} as const;

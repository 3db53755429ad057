/**
 * The pvpanic device's byte, as in linux/include/uapi/misc/pvpanic.h and QEMU's docs/specs/pvpanic.rst.
 */

export const PvpanicEvent = { PANICKED: 1, CRASH_LOADED: 2 } as const;

/** What a read answers: the events that the device understands. */
export const PVPANIC_EVENTS = PvpanicEvent.PANICKED | PvpanicEvent.CRASH_LOADED;

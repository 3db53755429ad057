/**
 * The MC146818 real-time clock and the PC's use of its memory: Motorola's data sheet MC146818A (1984), and for the
 * bytes above 0x0D the IBM PC/AT technical reference and what QEMU's and SeaBIOS's firmware interface added.
 */

export const RtcRegister = {
  SECONDS: 0x00,
  SECONDS_ALARM: 0x01,
  MINUTES: 0x02,
  MINUTES_ALARM: 0x03,
  HOURS: 0x04,
  HOURS_ALARM: 0x05,
  DAY_OF_WEEK: 0x06,
  DAY_OF_MONTH: 0x07,
  MONTH: 0x08,
  YEAR: 0x09,
  A: 0x0a,
  B: 0x0b,
  C: 0x0c,
  D: 0x0d,
  EQUIPMENT: 0x14,
  /** KiB below 640 KiB; KiB from 1 MiB on, at most 65535, twice. */
  BASE_MEMORY: 0x15,
  EXTENDED_MEMORY: 0x17,
  EXTENDED_MEMORY_AGAIN: 0x30,
  CHECKSUM_FIRST: 0x10,
  CHECKSUM_LAST: 0x2d,
  /** Sum of the bytes above, high byte first. */
  CHECKSUM: 0x2e,
  CENTURY: 0x32,
  /** Units of 64 KiB from 16 MiB to 4 GiB, two bytes; from 4 GiB on, three bytes. */
  MEMORY_ABOVE_16M: 0x34,
  MEMORY_ABOVE_4G: 0x5b,
} as const;

export const RtcA = { UPDATE_IN_PROGRESS: 0x80, DIVIDER_MASK: 0x70, DIVIDER_RESET: 0x60, RATE_MASK: 0x0f } as const;

/** Register B. Its interrupt enables stand where register C has the flags. */
export const RtcB = {
  SET: 0x80,
  PERIODIC: 0x40,
  ALARM: 0x20,
  UPDATE: 0x10,
  BINARY: 0x04,
  HOURS_24: 0x02,
  INTERRUPTS: 0x70,
} as const;

export const RtcC = { INTERRUPT: 0x80, PERIODIC: 0x40, ALARM: 0x20, UPDATE: 0x10 } as const;

/** Register D: the battery is good. */
export const RTC_VALID = 0x80;
/** In hours of the 12-hour mode. */
export const RTC_PM = 0x80;
/** Alarm bytes from here on match anything. */
export const RTC_ALARM_ANY = 0xc0;
export const RTC_OSCILLATOR_HZ = 32_768;

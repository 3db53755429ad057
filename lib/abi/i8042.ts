/**
 * The PC's keyboard controller, as in the IBM PS/2 hardware interface technical reference (keyboard and auxiliary
 * device controller) and linux/drivers/input/serio/i8042.h, and the few commands of an AT keyboard that a probe sends.
 */

export const I8042Status = {
  OUTPUT_FULL: 0x01,
  SYSTEM: 0x04,
  LAST_WAS_COMMAND: 0x08,
  /** The keyboard is not locked. */
  UNLOCKED: 0x10,
  AUX_DATA: 0x20,
  TIMEOUT: 0x40,
} as const;

/** The controller's command byte. */
export const I8042Control = {
  KEYBOARD_INTERRUPT: 0x01,
  AUX_INTERRUPT: 0x02,
  SYSTEM: 0x04,
  KEYBOARD_DISABLED: 0x10,
  AUX_DISABLED: 0x20,
  TRANSLATE: 0x40,
} as const;

export const I8042Command = {
  READ_RAM: 0x20,
  WRITE_RAM: 0x60,
  AUX_DISABLE: 0xa7,
  AUX_ENABLE: 0xa8,
  AUX_TEST: 0xa9,
  SELF_TEST: 0xaa,
  KEYBOARD_TEST: 0xab,
  KEYBOARD_DISABLE: 0xad,
  KEYBOARD_ENABLE: 0xae,
  READ_INPUT_PORT: 0xc0,
  READ_OUTPUT_PORT: 0xd0,
  WRITE_OUTPUT_PORT: 0xd1,
  WRITE_KEYBOARD_BUFFER: 0xd2,
  WRITE_AUX_BUFFER: 0xd3,
  WRITE_AUX: 0xd4,
  A20_OFF: 0xdd,
  A20_ON: 0xdf,
  /** 0xF0 to 0xFF pulse the output port's low bits that are 0. */
  PULSE: 0xf0,
} as const;

/** The controller's output port: bit 0 low resets the CPU, bit 1 lets A20 through. */
export const I8042OutputPort = { NOT_RESET: 0x01, A20: 0x02 } as const;

export const I8042Answer = { SELF_TEST_PASSED: 0x55, TEST_PASSED: 0x00, CLOCK_STUCK: 0x01 } as const;

export const KeyboardCommand = {
  SET_LEDS: 0xed,
  ECHO: 0xee,
  SCAN_CODE_SET: 0xf0,
  IDENTIFY: 0xf2,
  SET_RATE: 0xf3,
  ENABLE: 0xf4,
  DISABLE: 0xf5,
  DEFAULTS: 0xf6,
  RESET: 0xff,
} as const;

export const KeyboardAnswer = { ACK: 0xfa, RESEND: 0xfe, TEST_PASSED: 0xaa } as const;

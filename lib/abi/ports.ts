/**
 * Where this machine's fixed devices sit in port space, and the GSIs they raise. The PC's own places follow the
 * "I/O address map" of the Intel 8 Series PCH data sheet (section 9.3.1) and IBM's PC/AT technical reference; the power
 * management block and the guest channel are ours, and boot/acpi tells the guest where they are.
 */

export const Port = {
  /** i8042 data, system control port B, i8042 command and status. */
  I8042_DATA: 0x60,
  SYSTEM_CONTROL_B: 0x61,
  I8042_COMMAND: 0x64,
  RTC_INDEX: 0x70,
  RTC_DATA: 0x71,
  /** Power-on self test codes; Linux writes here to lose a microsecond (io_delay=0x80). */
  POST_CODE: 0x80,
  /** Linux's other delay port (io_delay=0xed). */
  DELAY_ALTERNATIVE: 0xed,
  /** Our debug-exit port: the byte written ends the machine. */
  DEBUG_EXIT: 0xf4,
  COM4: 0x2e8,
  COM2: 0x2f8,
  COM3: 0x3e8,
  COM1: 0x3f8,
  /** As QEMU's docs/specs/pvpanic.rst has it. */
  PVPANIC: 0x505,
  /** lib/abi/guest-channel.ts. */
  GUEST_CHANNEL: 0x5a0,
  /** PM1a event block (4 bytes), PM1a control (2), PM timer (4), GPE0 block (8): ACPI 6.5, section 4.8. */
  PM1A_EVENT: 0x600,
  PM1A_CONTROL: 0x604,
  PM_TIMER: 0x608,
  GPE0: 0x620,
  /** Reset control register of Intel's south bridges: the FADT's RESET_REG. */
  RESET_CONTROL: 0xcf9,
} as const;

/** Global system interrupts: ISA IRQ n is GSI n, but for IRQ 0, which the MADT moves to GSI 2. */
export const Gsi = {
  KEYBOARD: 1,
  COM2: 3,
  COM1: 4,
  RTC: 8,
  /** The ACPI system control interrupt: level, active high. */
  SCI: 9,
  MOUSE: 12,
} as const;

/** A COM port takes eight ports. */
export const UART_PORT_COUNT = 8;
/** GPE0 has this many bytes: half status, half enable (ACPI 6.5, section 4.8.4.1). */
export const GPE0_LENGTH_BYTES = 8;

/** General purpose events of GPE0, by number: each has a method of its own in \_GPE. */
export const Gpe = {
  /** The machine is a clone, or was set back: the generation id has changed. */
  GENERATION_ID: 5,
} as const;

/**
 * Registers of ACPI's fixed hardware, as in ACPI 6.5, section 4.8.3 (PM1 and the PM timer), and what this machine puts
 * into its FADT and its \_S5 for them. Ports are in ports.ts.
 */

/** PM1 status and enable bits share their places (tables 4.11 and 4.12). */
export const Pm1Event = {
  TIMER: 0x0001,
  GLOBAL: 0x0020,
  POWER_BUTTON: 0x0100,
  SLEEP_BUTTON: 0x0200,
  CLOCK: 0x0400,
  WAKE: 0x8000,
} as const;

/** PM1 control (table 4.13). */
export const Pm1Control = {
  SCI_ENABLE: 0x0001,
  SLEEP_TYPE_SHIFT: 10,
  SLEEP_TYPE_MASK: 0x7,
  SLEEP_ENABLE: 0x2000,
} as const;

/** SLP_TYPa of soft off; \_S5 in the DSDT says it to the guest. */
export const SLEEP_TYPE_S5 = 5;

/** The PM timer counts at 3.579545 MHz (section 4.8.3.3), here with 32 bits: TMR_VAL_EXT in the FADT's flags is set. */
export const PM_TIMER_HZ = 3_579_545n;

/** Written to the reset control register by the FADT's RESET_VALUE: full reset (RST_CPU and SYS_RST). */
export const RESET_VALUE = 0x06;
/** RST_CPU of the reset control register: setting it resets. */
export const RESET_CPU = 0x04;

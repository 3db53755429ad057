/**
 * Registers of the 16550A UART, as in National Semiconductor's data sheet "PC16550D Universal Asynchronous
 * Receiver/Transmitter with FIFOs" (June 1995), table II and section 8, and linux/serial_reg.h.
 */

/** Offsets from the base port. With LCR.DLAB set, 0 and 1 are the divisor latch. */
export const UartRegister = {
  /** Receiver buffer (read), transmitter holding (write), divisor latch low (DLAB). */
  DATA: 0,
  /** Interrupt enable, divisor latch high (DLAB). */
  IER: 1,
  /** Interrupt identification (read), FIFO control (write). */
  IIR_FCR: 2,
  LCR: 3,
  MCR: 4,
  LSR: 5,
  MSR: 6,
  SCR: 7,
} as const;

export const UartIer = { RECEIVE: 0x01, TRANSMIT: 0x02, LINE_STATUS: 0x04, MODEM_STATUS: 0x08 } as const;

/** Interrupt sources as the IIR names them, in falling priority; bits 7:6 say that the FIFOs are on. */
export const UartIir = {
  LINE_STATUS: 0x06,
  RECEIVE: 0x04,
  CHARACTER_TIMEOUT: 0x0c,
  TRANSMIT: 0x02,
  MODEM_STATUS: 0x00,
  NONE: 0x01,
  FIFOS_ON: 0xc0,
} as const;

export const UartFcr = { ENABLE: 0x01, CLEAR_RECEIVE: 0x02, CLEAR_TRANSMIT: 0x04, TRIGGER_SHIFT: 6 } as const;

/** Receiver FIFO trigger levels in bytes, by FCR bits 7:6. */
export const UART_TRIGGER_LEVELS = [1, 4, 8, 14] as const;

export const UART_FIFO_BYTES = 16;

export const UartLcr = { DLAB: 0x80 } as const;

export const UartMcr = { DTR: 0x01, RTS: 0x02, OUT1: 0x04, OUT2: 0x08, LOOP: 0x10 } as const;

export const UartLsr = {
  DATA_READY: 0x01,
  OVERRUN: 0x02,
  TRANSMIT_EMPTY: 0x20,
  TRANSMITTER_IDLE: 0x40,
} as const;

export const UartMsr = {
  DELTA_CTS: 0x01,
  DELTA_DSR: 0x02,
  TRAILING_RI: 0x04,
  DELTA_DCD: 0x08,
  DELTAS: 0x0f,
  CTS: 0x10,
  DSR: 0x20,
  RI: 0x40,
  DCD: 0x80,
} as const;

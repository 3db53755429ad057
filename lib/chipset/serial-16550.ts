/**
 * A 16550A UART on the host's streams: registers and interrupts of the PC16550D data sheet (lib/abi/16550.ts).
 * Transmission takes no time; input is fed through uart-receiver.ts when the guest listens. Registers without read side
 * effects are published, THR writes are posted, and all of the receiver FIFO but its last byte stands in a read queue, so
 * that a byte costs no trip to JavaScript: Linux needs one for each 16 of output and each 256 of input. What the queue
 * gave is caught up with (#sync) before anything else; every change of state is published before the access returns.
 */
import {
  UART_FIFO_BYTES,
  UART_TRIGGER_LEVELS,
  UartFcr,
  UartIer,
  UartIir,
  UartLcr,
  UartLsr,
  UartMcr,
  UartMsr,
  UartRegister,
} from '../abi/16550.js';
import { UART_PORT_COUNT } from '../abi/ports.js';
import type { Clock } from '../base/clock.js';
import type { AccessSize, BusDevice, FastRegisters, InterruptLine, ReadQueue } from '../bus/device.js';
import type { Savable, SavedPart } from '../base/saved-state.js';
import { RegisterPublisher } from './register-publisher.js';
import { serialFormat } from './serial-state.js';
import { UartReceiver } from './uart-receiver.js';
import { UartTransmitter } from './uart-transmitter.js';

export interface Serial16550Options {
  readonly name: string;
  readonly basePort: number;
  readonly irq: InterruptLine;
  readonly clock: Clock;
  readonly fast: FastRegisters;
  /** Takes what the guest sends; the array is the callee's to keep. It must not throw. */
  readonly output: (bytes: Uint8Array) => void;
  /** Runs a callback at the end of this turn. Default: queueMicrotask. */
  readonly schedule?: (callback: () => void) => void;
  /** Bytes of waiting input from which `receive` answers false. Default 64 KiB. */
  readonly highWaterBytes?: number;
}

/** Consecutive reads of the LSR, with nothing else between them, that only a guest polling for input makes. */
const POLLING_READS = 16;
/**
 * How many bytes the receiver has ready for a guest with FIFOs. More than a FIFO of 16: a sender that refills it as fast as
 * it is read can't be told from this, and Linux reads up to 256 bytes in one interrupt.
 */
const RECEIVE_AHEAD_BYTES = 256;
const OUTSIDE_LINES = UartMsr.CTS | UartMsr.DSR | UartMsr.DCD;

function powerOn() {
  return {
    ier: 0,
    lcr: 0,
    mcr: 0,
    scr: 0,
    divisorLow: 0x0c,
    divisorHigh: 0,
    fifosOn: false,
    triggerBytes: 1,
    fifo: [] as number[],
    overrun: false,
    /** The transmitter became empty and the IIR has not been read since. */
    transmitPending: false,
    modemLines: OUTSIDE_LINES,
    modemDeltas: 0,
    /** The guest polls for input without interrupts. */
    polling: false,
    lineStatusReads: 0,
  };
}

export class Serial16550 implements BusDevice, Savable {
  readonly name: string;
  readonly maxSize = 1;

  readonly #options: Serial16550Options;
  readonly #receiver: UartReceiver;
  readonly #transmitter: UartTransmitter;
  #state = powerOn();
  #lineIsHigh = false;
  #scheduled = false;
  readonly #publisher: RegisterPublisher;
  readonly #queue: ReadQueue;
  /** How many bytes of the FIFO, from its front, stand in the read queue. */
  #queuedBytes = 0;
  #counters = { receivedBytes: 0, sentBytes: 0, overruns: 0 };

  constructor(options: Serial16550Options) {
    this.#options = options;
    this.name = options.name;
    this.#receiver = new UartReceiver(options.clock, options.highWaterBytes ?? 64 * 1024, () => this.#refresh());
    this.#transmitter = new UartTransmitter(options.output);
    this.#publisher = new RegisterPublisher(options.fast, options.basePort, UART_PORT_COUNT);
    this.#queue = options.fast.queue(options.basePort + UartRegister.DATA);
    this.#publish();
  }

  // The host's side.

  /** Queues a copy of `bytes` as input. False asks the caller to stop until `onDrain`; the bytes were taken still. */
  receive(bytes: Uint8Array): boolean {
    const goOn = this.#receiver.push(bytes);
    this.#refresh();
    return goOn;
  }

  /** Input that the guest has not taken yet, the receiver FIFO's included. */
  get pendingInputBytes(): number {
    this.#sync();
    return this.#receiver.length + this.#state.fifo.length;
  }

  /** Called when at most half the high-water mark of input waits again, after a `receive` that answered false. */
  set onDrain(callback: (() => void) | undefined) {
    this.#receiver.onDrain = callback;
  }

  /** The host can't take output now: the transmitter stays full and the guest's driver waits. */
  pauseOutput(): void {
    this.#transmitter.pause();
    this.#publish();
  }

  resumeOutput(): void {
    const wasReady = this.#transmitter.ready;
    this.#transmitter.resume();
    if (!wasReady) this.#state.transmitPending = true;
    this.#refresh();
  }

  /** Ends the turn now: hands on gathered output and raises the interrupt that waited for it. */
  settle(): void {
    this.#scheduled = false;
    this.#transmitter.flush();
    this.#updateLine();
  }

  // The guest's side.

  read(offset: number): number {
    this.#sync();
    const state = this.#state;
    if (offset !== UartRegister.LSR) state.lineStatusReads = 0;
    switch (offset) {
      case UartRegister.DATA:
        return this.#dividing ? state.divisorLow : this.#takeReceived();
      case UartRegister.IER:
        return this.#dividing ? state.divisorHigh : state.ier;
      case UartRegister.IIR_FCR:
        return this.#identifyInterrupt();
      case UartRegister.LCR:
        return state.lcr;
      case UartRegister.MCR:
        return state.mcr;
      case UartRegister.LSR:
        return this.#readLineStatus();
      case UartRegister.MSR:
        return this.#readModemStatus();
      default:
        return state.scr;
    }
  }

  write(offset: number, _size: AccessSize, value: number | bigint): void {
    this.#sync();
    const byte = Number(value) & 0xff;
    const state = this.#state;
    state.lineStatusReads = 0;
    switch (offset) {
      case UartRegister.DATA:
        if (!this.#dividing) {
          this.#transmit(byte);
          return;
        }
        state.divisorLow = byte;
        break;
      case UartRegister.IER:
        if (this.#dividing) state.divisorHigh = byte;
        else this.#writeInterruptEnable(byte & 0x0f);
        break;
      case UartRegister.IIR_FCR:
        this.#writeFifoControl(byte);
        break;
      case UartRegister.LCR:
        state.lcr = byte;
        break;
      case UartRegister.MCR:
        this.#writeModemControl(byte & 0x1f);
        break;
      case UartRegister.SCR:
        state.scr = byte;
        break;
      default: // LSR and MSR: writes are for factory tests (data sheet, sections 8.6 and 8.9).
        break;
    }
    this.#refresh();
  }

  reset(): void {
    this.#takeBackQueued();
    this.#state = powerOn();
    this.#refresh();
  }

  inspect(): unknown {
    this.#sync();
    const { fifo, ...registers } = this.#state;
    return {
      ...registers,
      fifoBytes: fifo.length,
      waitingBytes: this.#receiver.length,
      heldBytes: this.#transmitter.heldBytes,
      lostBytes: this.#transmitter.lostBytes,
      interrupt: this.#lineIsHigh,
      ...this.#counters,
    };
  }

  /** Ends the turn before, so that nothing is under way to the host or to the interrupt line. */
  saveState(): SavedPart {
    this.settle();
    this.#sync();
    const { fifo, ...registers } = this.#state;
    return serialFormat.save({
      registers: { ...registers, lineStatusReads: Math.min(registers.lineStatusReads, 0xffff) },
      fifo: Uint8Array.from(fifo),
      interrupt: this.#lineIsHigh,
      receiver: this.#receiver.saveState(),
      held: this.#transmitter.held(),
      counters: { ...this.#counters },
    });
  }

  restoreState(part: SavedPart): void {
    const { registers, fifo, interrupt, receiver, held, counters } = serialFormat.load(part);
    this.#takeBackQueued();
    this.#state = { ...registers, fifo: [...fifo] };
    this.#counters = { ...counters };
    this.#receiver.restoreState(receiver);
    this.#transmitter.takeOver(held);
    // Nothing is fed here: the line is as it was, whatever the interrupt controllers will be told of it later.
    this.#setLine(interrupt);
    this.#publish();
  }

  get #dividing(): boolean {
    return (this.#state.lcr & UartLcr.DLAB) !== 0;
  }

  get #looping(): boolean {
    return (this.#state.mcr & UartMcr.LOOP) !== 0;
  }

  /** Catches up with what reads took from the queue. */
  #sync(): void {
    const taken = Math.min(this.#queue.takenBytes(), this.#queuedBytes);
    if (taken === 0) return;
    this.#state.fifo.splice(0, taken);
    this.#queuedBytes -= taken;
    this.#counters.receivedBytes += taken;
  }

  #takeBackQueued(): void {
    if (this.#queuedBytes === 0) return;
    this.#queue.clear();
    this.#sync();
    this.#queuedBytes = 0;
  }

  #takeReceived(): number {
    this.#takeBackQueued(); // another CPU may have come here while bytes were in the queue
    const byte = this.#state.fifo.shift();
    if (byte === undefined) return 0;
    this.#counters.receivedBytes++;
    this.#refresh();
    return byte;
  }

  /** The source of highest priority (data sheet, table V), without the FIFO bits. */
  #pendingInterrupt(): number {
    const { ier, fifo, overrun, fifosOn, triggerBytes, transmitPending, modemDeltas } = this.#state;
    if ((ier & UartIer.LINE_STATUS) !== 0 && overrun) return UartIir.LINE_STATUS;
    if ((ier & UartIer.RECEIVE) !== 0 && fifo.length > 0) {
      // Below the trigger the data sheet waits for four character times; nothing is gained by waiting here.
      return !fifosOn || fifo.length >= triggerBytes ? UartIir.RECEIVE : UartIir.CHARACTER_TIMEOUT;
    }
    if ((ier & UartIer.TRANSMIT) !== 0 && transmitPending) return UartIir.TRANSMIT;
    if ((ier & UartIer.MODEM_STATUS) !== 0 && modemDeltas !== 0) return UartIir.MODEM_STATUS;
    return UartIir.NONE;
  }

  #identifyInterrupt(): number {
    const source = this.#pendingInterrupt();
    if (source === UartIir.TRANSMIT) {
      this.#state.transmitPending = false;
      this.#updateLine();
    }
    return source | (this.#state.fifosOn ? UartIir.FIFOS_ON : 0);
  }

  #lineStatus(): number {
    const { fifo, overrun } = this.#state;
    const isEmpty = this.#looping || this.#transmitter.ready;
    return (
      (fifo.length > 0 ? UartLsr.DATA_READY : 0) |
      (overrun ? UartLsr.OVERRUN : 0) |
      (isEmpty ? UartLsr.TRANSMIT_EMPTY | UartLsr.TRANSMITTER_IDLE : 0)
    );
  }

  #readLineStatus(): number {
    const status = this.#lineStatus();
    const state = this.#state;
    state.overrun = false;
    if (this.#inputIsHeldBack && ++state.lineStatusReads >= POLLING_READS) state.polling = true;
    this.#refresh();
    return status;
  }

  #readModemStatus(): number {
    const { modemLines, modemDeltas } = this.#state;
    this.#state.modemDeltas = 0;
    this.#refresh();
    return modemLines | modemDeltas;
  }

  #transmit(byte: number): void {
    const state = this.#state;
    this.#counters.sentBytes++;
    if (this.#looping) {
      if (state.fifo.length < this.#depthBytes) {
        state.fifo.push(byte);
      } else {
        state.overrun = true;
        this.#counters.overruns++;
      }
      state.transmitPending = true;
      this.#refresh();
      return;
    }
    const wasReady = this.#transmitter.ready;
    this.#transmitter.put(byte);
    const isReady = this.#transmitter.ready;
    state.transmitPending = isReady;
    if (wasReady !== isReady) this.#publish();
    // The interrupt waits for the end of the turn: the driver writes 16 bytes and reads the IIR before it needs one.
    if (this.#lineIsHigh) this.#updateLine();
    if (!this.#scheduled) {
      this.#scheduled = true;
      (this.#options.schedule ?? queueMicrotask)(() => this.settle());
    }
  }

  #writeInterruptEnable(ier: number): void {
    const state = this.#state;
    const turnedOn = ier & ~state.ier;
    state.ier = ier;
    // Enabling it with an empty transmitter interrupts at once (data sheet, section 8.7); Linux tests for that.
    if ((turnedOn & UartIer.TRANSMIT) !== 0 && this.#transmitter.ready) state.transmitPending = true;
    if ((turnedOn & UartIer.RECEIVE) !== 0) state.polling = false;
  }

  #writeFifoControl(fcr: number): void {
    const state = this.#state;
    const on = (fcr & UartFcr.ENABLE) !== 0;
    // The other bits are taken only together with the enable bit; a change of it empties the FIFOs (section 8.4).
    if (on !== state.fifosOn || (on && (fcr & UartFcr.CLEAR_RECEIVE) !== 0)) {
      this.#takeBackQueued();
      state.fifo.splice(0, UART_FIFO_BYTES); // what lies behind has not arrived yet
    }
    state.fifosOn = on;
    state.triggerBytes = on ? UART_TRIGGER_LEVELS[(fcr >> UartFcr.TRIGGER_SHIFT) as 0 | 1 | 2 | 3] : 1;
  }

  #writeModemControl(mcr: number): void {
    const state = this.#state;
    state.mcr = mcr;
    const lines = this.#looping ? loopedLines(mcr) : OUTSIDE_LINES;
    const changed = lines ^ state.modemLines;
    state.modemDeltas |= (changed & (UartMsr.CTS | UartMsr.DSR | UartMsr.DCD)) >> 4;
    if ((changed & ~lines & UartMsr.RI) !== 0) state.modemDeltas |= UartMsr.TRAILING_RI;
    state.modemLines = lines;
  }

  get #depthBytes(): number {
    return this.#state.fifosOn ? UART_FIFO_BYTES : 1;
  }

  /**
   * Input waits, but the guest does not listen: Linux reads and throws away the receiver when it opens a port, before
   * it enables the interrupt.
   */
  get #inputIsHeldBack(): boolean {
    const { ier, polling } = this.#state;
    return this.#receiver.length > 0 && (ier & UartIer.RECEIVE) === 0 && !polling && !this.#looping;
  }

  #feed(): void {
    const { ier, mcr, fifo, polling } = this.#state;
    if (this.#looping || ((ier & UartIer.RECEIVE) === 0 && !polling)) return;
    // DTR without RTS is a driver that asks to wait (crtscts).
    if ((mcr & (UartMcr.DTR | UartMcr.RTS)) === UartMcr.DTR) return;
    const aheadBytes = this.#state.fifosOn ? RECEIVE_AHEAD_BYTES : 1;
    while (fifo.length < aheadBytes) {
      const byte = this.#receiver.next(fifo.length === 0, !polling);
      if (byte < 0) return;
      fifo.push(byte);
    }
  }

  #refresh(): void {
    this.#sync();
    this.#feed();
    this.#publish();
    this.#updateLine();
  }

  /** The PC takes the interrupt through a gate that OUT2 opens; in loop mode the OUT2 pin is off (section 8.6). */
  #updateLine(): void {
    const gated = (this.#state.mcr & (UartMcr.OUT2 | UartMcr.LOOP)) === UartMcr.OUT2;
    this.#setLine(gated && this.#pendingInterrupt() !== UartIir.NONE);
  }

  #setLine(high: boolean): void {
    if (high === this.#lineIsHigh) return;
    this.#lineIsHigh = high;
    this.#options.irq.set(high);
  }

  #publish(): void {
    const { ier, lcr, mcr, scr, divisorLow, divisorHigh, overrun, modemLines, modemDeltas } = this.#state;
    const publisher = this.#publisher;
    publisher.publish(UartRegister.DATA, this.#dividing ? divisorLow : undefined);
    publisher.publish(UartRegister.IER, this.#dividing ? divisorHigh : ier);
    // Reading it may take back the transmitter's interrupt. It also tells a driver that has just sent 16 bytes, which are
    // posted, to go on with the next 16: that is known only here.
    const iir = this.#pendingInterrupt() | (this.#state.fifosOn ? UartIir.FIFOS_ON : 0);
    publisher.publish(UartRegister.IIR_FCR, (ier & UartIer.TRANSMIT) !== 0 ? undefined : iir);
    publisher.publish(UartRegister.LCR, lcr);
    publisher.publish(UartRegister.MCR, mcr);
    // Reading clears an overrun, and whether a guest polls for held-back input shows only in reads that come here.
    publisher.publish(UartRegister.LSR, overrun || this.#inputIsHeldBack ? undefined : this.#lineStatus());
    publisher.publish(UartRegister.MSR, modemDeltas !== 0 ? undefined : modemLines);
    publisher.publish(UartRegister.SCR, scr);
    publisher.post(UartRegister.DATA, !this.#dividing && !this.#looping && !this.#transmitter.paused);
    this.#offerReceived();
  }

  /** The last byte is not offered: its reading empties the FIFO, which this side must see. */
  #offerReceived(): void {
    const { fifo } = this.#state;
    if (this.#dividing) this.#takeBackQueued();
    else if (this.#queuedBytes < fifo.length - 1) {
      this.#queuedBytes += this.#queue.offer(fifo, this.#queuedBytes, fifo.length - 1);
    }
  }
}

/** MSR lines in loop mode: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD (data sheet, section 8.6). */
function loopedLines(mcr: number): number {
  return (
    ((mcr & UartMcr.DTR) !== 0 ? UartMsr.DSR : 0) |
    ((mcr & UartMcr.RTS) !== 0 ? UartMsr.CTS : 0) |
    ((mcr & UartMcr.OUT1) !== 0 ? UartMsr.RI : 0) |
    ((mcr & UartMcr.OUT2) !== 0 ? UartMsr.DCD : 0)
  );
}

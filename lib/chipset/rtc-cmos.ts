/**
 * The CMOS clock: an MC146818 with 128 bytes behind ports 0x70 and 0x71, showing the host's date in UTC and raising IRQ
 * 8 for its periodic, alarm and update interrupts (lib/abi/rtc.ts has the data sheet). Nothing ticks: the date is
 * computed when it is read, flags when they are looked at, and one host timer runs while an enabled interrupt has yet
 * to come.
 */
import { RTC_OSCILLATOR_HZ, RTC_VALID, RtcA, RtcB, RtcC, RtcRegister } from '../abi/rtc.js';
import * as v from 'valibot';
import type { Clock, Timer } from '../base/clock.js';
import { KiB, MiB } from '../base/units.js';
import { Port } from '../abi/ports.js';
import { bytes, integer, stateFormat, u64, u8, type Savable, type SavedPart } from '../base/saved-state.js';
import type { AccessSize, BusDevice, FastRegisters, InterruptLine } from '../bus/device.js';
import { CALENDAR_REGISTERS, decodeDate, encodeDate, nextAlarmMs } from './rtc-calendar.js';

export interface RtcCmosOptions {
  readonly irq: InterruptLine;
  readonly clock: Clock;
  readonly fast: FastRegisters;
  /** RAM below and from 4 GiB on, for the size bytes that PC firmware leaves. */
  readonly memory: { readonly belowFourGiBBytes: number; readonly aboveFourGiBBytes: number };
  /** Default: a new one. */
  readonly battery?: RtcBattery;
}

/** What outlives a power cycle. */
export interface RtcBattery {
  /** The CMOS memory, RTC_BYTES long. */
  readonly bytes: Uint8Array;
  /** The guest's date less the host's. */
  offsetMs: number;
}

const RTC_BYTES = 128;

/** A fresh battery: memory of zeros, and the host's date. */
export function newRtcBattery(): RtcBattery {
  return { bytes: new Uint8Array(RTC_BYTES), offsetMs: 0 };
}

/** 32 kHz crystal, periodic rate 1024 Hz: what firmware sets. */
const POWER_ON_A = 0x26;
const POWER_ON_B = RtcB.HOURS_24;

/** All state besides what the battery keeps. */
interface RtcState {
  index: number;
  flags: number;
  /** The date while the clock stands still, and whether the guest has written to it since. */
  heldMs: number | undefined;
  heldIsWritten: boolean;
  /** Up to where flags were looked at: date, and periods of the periodic interrupt. */
  seenMs: number;
  seenPeriods: bigint;
}

const MAX_DATE_MS = 8.64e15;
const dateMs = integer(-MAX_DATE_MS, MAX_DATE_MS);

/** Dates are the guest's; no time of the host's is in it. */
const rtcFormat = stateFormat({
  type: 'rtc-cmos',
  version: 1,
  schema: v.strictObject({
    bytes: bytes({ length: RTC_BYTES }),
    dateMs,
    index: integer(0, 0x7f),
    flags: u8,
    heldMs: v.optional(dateMs),
    heldIsWritten: v.boolean(),
    seenMs: dateMs,
    /** How long the oscillator has run, and the periods seen of that. */
    runNs: u64,
    seenPeriods: u64,
    interrupt: v.boolean(),
  }),
});

export class RtcCmos implements BusDevice, Savable {
  readonly name = 'rtc';
  readonly maxSize = 1;

  readonly #irq: InterruptLine;
  readonly #clock: Clock;
  readonly #memory: RtcCmosOptions['memory'];
  readonly #battery: RtcBattery;
  readonly #bytes: Uint8Array;
  readonly #state: RtcState = {
    index: 0,
    flags: 0,
    heldMs: undefined,
    heldIsWritten: false,
    seenMs: 0,
    seenPeriods: 0n,
  };
  #lineIsHigh = false;
  #timer: Timer | undefined;
  /** The oscillator's beginning, on the clock. */
  #startNs: bigint;

  constructor(options: RtcCmosOptions) {
    this.#startNs = options.clock.nowNs();
    this.#irq = options.irq;
    this.#clock = options.clock;
    this.#memory = options.memory;
    this.#battery = options.battery ?? newRtcBattery();
    this.#bytes = this.#battery.bytes;
    // The index has no effect until the data port is read or written, which waits for it.
    options.fast.post(Port.RTC_INDEX, true);
    this.reset();
  }

  read(offset: number): number {
    // Port 0x70 can't be read on a PC.
    if (offset === 0) return 0xff;
    const index = this.#state.index;
    if (CALENDAR_REGISTERS.has(index)) {
      return this.#state.heldMs === undefined ? encodeDate(index, this.#dateMs(), this.#b) : (this.#bytes[index] ?? 0);
    }
    switch (index) {
      case RtcRegister.A:
        return (this.#bytes[RtcRegister.A] ?? 0) | (this.#isUpdating() ? RtcA.UPDATE_IN_PROGRESS : 0);
      case RtcRegister.C:
        return this.#readFlags();
      case RtcRegister.D:
        return RTC_VALID;
      default:
        return this.#bytes[index] ?? 0;
    }
  }

  write(offset: number, _size: AccessSize, value: number | bigint): void {
    const byte = Number(value) & 0xff;
    if (offset === 0) {
      // Bit 7 masks the NMI, of which this machine has none.
      this.#state.index = byte & 0x7f;
      return;
    }
    const index = this.#state.index;
    if (CALENDAR_REGISTERS.has(index)) {
      this.#writeCalendar(index, byte);
    } else if (index === RtcRegister.A || index === RtcRegister.B) {
      this.#look();
      this.#bytes[index] = index === RtcRegister.A ? byte & ~RtcA.UPDATE_IN_PROGRESS : byte;
      // SET clears the update interrupt's enable (data sheet, register B).
      if (index === RtcRegister.B && (byte & RtcB.SET) !== 0) this.#bytes[index] = byte & ~RtcB.UPDATE;
      if (index === RtcRegister.A) this.#state.seenPeriods = this.#periods();
      this.#stopOrGo();
    } else if (index !== RtcRegister.C && index !== RtcRegister.D) {
      this.#bytes[index] = byte;
    }
    this.#update();
  }

  /** The battery keeps the memory; the reset line clears the interrupt enables, and firmware writes its bytes again. */
  reset(): void {
    this.#bytes[RtcRegister.A] = POWER_ON_A;
    this.#bytes[RtcRegister.B] = POWER_ON_B;
    this.#writeFirmwareBytes();
    this.#state.index = 0;
    this.#state.flags = 0;
    this.#state.heldMs = undefined;
    this.#state.seenMs = this.#dateMs();
    this.#state.seenPeriods = this.#periods();
    this.#update();
  }

  saveState(): SavedPart {
    const { heldMs, ...state } = this.#state;
    return rtcFormat.save({
      bytes: this.#bytes.slice(),
      dateMs: Math.round(this.#dateMs()),
      ...state,
      ...(heldMs === undefined ? {} : { heldMs: Math.round(heldMs) }),
      seenMs: Math.round(state.seenMs),
      runNs: this.#runNs(),
      interrupt: this.#lineIsHigh,
    });
  }

  /** The date goes on from the saved one; see passTime(). */
  restoreState(part: SavedPart): void {
    const { bytes: saved, dateMs, runNs, interrupt, heldMs, ...state } = rtcFormat.load(part);
    this.#bytes.set(saved);
    this.#battery.offsetMs = Math.round(dateMs - this.#clock.wallMs());
    Object.assign(this.#state, state, { heldMs });
    this.#startNs = this.#clock.nowNs() - runNs;
    if (interrupt !== this.#lineIsHigh) this.#irq.set(interrupt);
    this.#lineIsHigh = interrupt;
    this.#update();
  }

  /** The guest's date moves on by time in which it did not run. A clock that is held stands as before. */
  passTime(ns: bigint): void {
    this.#battery.offsetMs += Math.round(Number(ns) / 1e6);
    this.#startNs -= ns;
    this.#update();
  }

  inspect(): unknown {
    return {
      index: this.#state.index,
      registers: [...this.#bytes.subarray(0, RtcRegister.D)],
      flags: this.#state.flags,
      date: new Date(this.#dateMs()).toISOString(),
      offsetMs: this.#battery.offsetMs,
      interrupt: this.#lineIsHigh,
    };
  }

  get #b(): number {
    return this.#bytes[RtcRegister.B] ?? 0;
  }

  #dateMs(): number {
    return this.#state.heldMs ?? this.#clock.wallMs() + this.#battery.offsetMs;
  }

  #isUpdating(): boolean {
    // The data sheet's 244 us before the update, in the clock's resolution.
    return this.#state.heldMs === undefined && this.#dateMs() % 1000 >= 999;
  }

  #writeCalendar(index: number, byte: number): void {
    if (this.#state.heldMs !== undefined) {
      this.#bytes[index] = byte;
      this.#state.heldIsWritten = true;
      return;
    }
    const nowMs = this.#dateMs();
    this.#fillCalendar(nowMs);
    this.#bytes[index] = byte;
    this.#setDate(decodeDate(this.#bytes, this.#b) + (nowMs % 1000));
  }

  #fillCalendar(dateMs: number): void {
    for (const register of CALENDAR_REGISTERS) this.#bytes[register] = encodeDate(register, dateMs, this.#b);
  }

  #setDate(dateMs: number): void {
    this.#state.heldMs = undefined;
    this.#battery.offsetMs = Math.round(dateMs - this.#clock.wallMs());
    this.#state.seenMs = this.#dateMs();
  }

  /** The clock stands while SET is on or the divider is held in reset, and the guest may write a date. */
  #stopOrGo(): void {
    const isDividerReset = ((this.#bytes[RtcRegister.A] ?? 0) & RtcA.DIVIDER_RESET) === RtcA.DIVIDER_RESET;
    const stands = isDividerReset || (this.#b & RtcB.SET) !== 0;
    const heldMs = this.#state.heldMs;
    if (stands && heldMs === undefined) {
      this.#state.heldMs = this.#dateMs();
      this.#state.heldIsWritten = false;
      this.#fillCalendar(this.#state.heldMs);
    } else if (stands && isDividerReset && heldMs !== undefined) {
      // Half a second passes from the divider's release to the first update (data sheet, register A).
      this.#state.heldMs = heldMs - (heldMs % 1000) + 500;
    } else if (!stands && heldMs !== undefined) {
      const wholeMs = this.#state.heldIsWritten ? decodeDate(this.#bytes, this.#b) : heldMs - (heldMs % 1000);
      this.#setDate(wholeMs + (heldMs % 1000));
    }
  }

  #readFlags(): number {
    this.#look();
    const flags = this.#state.flags | (this.#lineIsHigh ? RtcC.INTERRUPT : 0);
    this.#state.flags = 0;
    this.#update();
    return flags;
  }

  /** Sets the flags of what has passed since the last look. */
  #look(): void {
    const periods = this.#periods();
    if (periods > this.#state.seenPeriods) this.#state.flags |= RtcC.PERIODIC;
    this.#state.seenPeriods = periods;
    const nowMs = this.#dateMs();
    if (this.#state.heldMs === undefined && Math.floor(nowMs / 1000) > Math.floor(this.#state.seenMs / 1000)) {
      this.#state.flags |= RtcC.UPDATE;
      const alarmMs = nextAlarmMs(this.#bytes, this.#b, this.#state.seenMs);
      if (alarmMs !== undefined && alarmMs <= nowMs) this.#state.flags |= RtcC.ALARM;
    }
    this.#state.seenMs = nowMs;
    this.#setLine();
  }

  #setLine(): void {
    const high = (this.#state.flags & this.#b & RtcB.INTERRUPTS) !== 0;
    if (high === this.#lineIsHigh) return;
    this.#lineIsHigh = high;
    this.#irq.set(high);
  }

  #runNs(): bigint {
    return this.#clock.nowNs() - this.#startNs;
  }

  /** Periods of the periodic interrupt since the oscillator's beginning; 0 while it is off. */
  #periods(): bigint {
    const periodNs = this.#periodNs();
    return periodNs === undefined ? 0n : this.#runNs() / periodNs;
  }

  #periodNs(): bigint | undefined {
    const rate = (this.#bytes[RtcRegister.A] ?? 0) & RtcA.RATE_MASK;
    if (rate === 0) return undefined;
    // With a 32 kHz crystal the rates 1 and 2 are those of 8 and 9 (data sheet, table 5).
    const halvings = rate <= 2 ? rate + 6 : rate - 1;
    return (1_000_000_000n << BigInt(halvings)) / BigInt(RTC_OSCILLATOR_HZ);
  }

  /** The line, and a timer for the next enabled interrupt whose flag is not set yet. */
  #update(): void {
    this.#setLine();
    this.#timer?.cancel();
    this.#timer = undefined;
    const waiting = this.#b & RtcB.INTERRUPTS & ~this.#state.flags;
    const delays: bigint[] = [];
    const periodNs = this.#periodNs();
    if ((waiting & RtcB.PERIODIC) !== 0 && periodNs !== undefined) {
      delays.push(periodNs - (this.#runNs() % periodNs));
    }
    if (this.#state.heldMs === undefined && (waiting & (RtcB.UPDATE | RtcB.ALARM)) !== 0) {
      const nowMs = this.#dateMs();
      const updateMs = 1000 - (nowMs % 1000);
      const alarmMs = nextAlarmMs(this.#bytes, this.#b, this.#state.seenMs);
      if ((waiting & RtcB.UPDATE) !== 0) delays.push(msToNs(updateMs));
      if ((waiting & RtcB.ALARM) !== 0 && alarmMs !== undefined) delays.push(msToNs(Math.max(alarmMs - nowMs, 1)));
    }
    if (delays.length === 0) return;
    const delayNs = delays.reduce((least, delay) => (delay < least ? delay : least));
    this.#timer = this.#clock.setTimer(delayNs, () => {
      this.#timer = undefined;
      this.#look();
      this.#update();
    });
  }

  /** What PC firmware leaves in the bytes above the clock. */
  #writeFirmwareBytes(): void {
    const { belowFourGiBBytes, aboveFourGiBBytes } = this.#memory;
    const extendedKiB = Math.min(Math.max(belowFourGiBBytes - MiB, 0) / KiB, 0xffff);
    this.#bytes[RtcRegister.EQUIPMENT] = 0x02; // a coprocessor, no diskette, no display adapter
    this.#put(RtcRegister.BASE_MEMORY, Math.min(belowFourGiBBytes / KiB, 640), 2);
    this.#put(RtcRegister.EXTENDED_MEMORY, extendedKiB, 2);
    this.#put(RtcRegister.EXTENDED_MEMORY_AGAIN, extendedKiB, 2);
    this.#put(
      RtcRegister.MEMORY_ABOVE_16M,
      Math.min(Math.max(belowFourGiBBytes - 16 * MiB, 0) / (64 * KiB), 0xffff),
      2,
    );
    this.#put(RtcRegister.MEMORY_ABOVE_4G, Math.min(aboveFourGiBBytes / (64 * KiB), 0xff_ffff), 3);
    let sum = 0;
    for (let at: number = RtcRegister.CHECKSUM_FIRST; at <= RtcRegister.CHECKSUM_LAST; at++)
      sum += this.#bytes[at] ?? 0;
    this.#bytes[RtcRegister.CHECKSUM] = sum >> 8;
    this.#bytes[RtcRegister.CHECKSUM + 1] = sum;
  }

  #put(at: number, value: number, length: number): void {
    for (let index = 0; index < length; index++) this.#bytes[at + index] = Math.floor(value) >>> (8 * index);
  }
}

function msToNs(ms: number): bigint {
  return BigInt(Math.ceil(ms)) * 1_000_000n;
}

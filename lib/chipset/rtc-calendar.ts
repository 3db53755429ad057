/**
 * How the MC146818 writes a date into its registers: BCD or binary, 12 or 24 hours, as register B says, with the PC's
 * century byte. Pure: dates are milliseconds since 1970, UTC; rtc-cmos.ts has the time and the registers.
 */
import { RTC_ALARM_ANY, RTC_PM, RtcB, RtcRegister } from '../abi/rtc.js';

const SECONDS_PER_DAY = 86_400;

/** The registers that hold the date, in no order. */
export const CALENDAR_REGISTERS: ReadonlySet<number> = new Set([
  RtcRegister.SECONDS,
  RtcRegister.MINUTES,
  RtcRegister.HOURS,
  RtcRegister.DAY_OF_WEEK,
  RtcRegister.DAY_OF_MONTH,
  RtcRegister.MONTH,
  RtcRegister.YEAR,
  RtcRegister.CENTURY,
]);

/** One register's byte for a date. */
export function encodeDate(register: number, dateMs: number, modeB: number): number {
  const date = new Date(dateMs);
  switch (register) {
    case RtcRegister.SECONDS:
      return encode(date.getUTCSeconds(), modeB);
    case RtcRegister.MINUTES:
      return encode(date.getUTCMinutes(), modeB);
    case RtcRegister.HOURS:
      return encodeHours(date.getUTCHours(), modeB);
    case RtcRegister.DAY_OF_WEEK:
      return encode(date.getUTCDay() + 1, modeB);
    case RtcRegister.DAY_OF_MONTH:
      return encode(date.getUTCDate(), modeB);
    case RtcRegister.MONTH:
      return encode(date.getUTCMonth() + 1, modeB);
    case RtcRegister.YEAR:
      return encode(date.getUTCFullYear() % 100, modeB);
    default:
      return encode(Math.floor(date.getUTCFullYear() / 100) % 100, modeB);
  }
}

/** The date that registers hold; whatever they hold, it is a date: the 31st of February is a day in March. */
export function decodeDate(registers: Uint8Array, modeB: number): number {
  const at = (register: number): number => decode(registers[register] ?? 0, modeB);
  const year = at(RtcRegister.CENTURY) * 100 + at(RtcRegister.YEAR);
  const hours = decodeHours(registers[RtcRegister.HOURS] ?? 0, modeB);
  return Date.UTC(
    year,
    at(RtcRegister.MONTH) - 1,
    at(RtcRegister.DAY_OF_MONTH),
    hours,
    at(RtcRegister.MINUTES),
    at(RtcRegister.SECONDS),
  );
}

/** The next date after `afterMs` that the alarm bytes match, or undefined when none ever does. */
export function nextAlarmMs(registers: Uint8Array, modeB: number, afterMs: number): number | undefined {
  const wanted = (register: number, read: (byte: number, mode: number) => number): number | undefined => {
    const byte = registers[register] ?? 0;
    return byte >= RTC_ALARM_ANY ? undefined : read(byte, modeB);
  };
  const second = wanted(RtcRegister.SECONDS_ALARM, decode);
  const minute = wanted(RtcRegister.MINUTES_ALARM, decode);
  const hour = wanted(RtcRegister.HOURS_ALARM, decodeHours);
  let at = Math.floor(afterMs / 1000) + 1;
  // At most 24 hours, 60 minutes and 60 seconds are skipped, and once around.
  for (let step = 0; step < 300; step++) {
    const ofDay = ((at % SECONDS_PER_DAY) + SECONDS_PER_DAY) % SECONDS_PER_DAY;
    if (hour !== undefined && Math.floor(ofDay / 3600) !== hour) at += 3600 - (ofDay % 3600);
    else if (minute !== undefined && Math.floor(ofDay / 60) % 60 !== minute) at += 60 - (ofDay % 60);
    else if (second !== undefined && ofDay % 60 !== second) at++;
    else return at * 1000;
  }
  return undefined;
}

function encode(value: number, modeB: number): number {
  return (modeB & RtcB.BINARY) !== 0 ? value : (Math.floor(value / 10) << 4) | (value % 10);
}

function decode(byte: number, modeB: number): number {
  return (modeB & RtcB.BINARY) !== 0 ? byte : (byte >> 4) * 10 + (byte & 0x0f);
}

function encodeHours(hours: number, modeB: number): number {
  if ((modeB & RtcB.HOURS_24) !== 0) return encode(hours, modeB);
  return encode(hours % 12 || 12, modeB) | (hours >= 12 ? RTC_PM : 0);
}

function decodeHours(byte: number, modeB: number): number {
  if ((modeB & RtcB.HOURS_24) !== 0) return decode(byte, modeB);
  return (decode(byte & ~RTC_PM, modeB) % 12) + ((byte & RTC_PM) !== 0 ? 12 : 0);
}

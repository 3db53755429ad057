/**
 * `bps=SIZE` and `iops=NUMBER` behind a `--disk` or a `--nic`: what the guest may do with it at most, from the text to checked limits and
 * back. Of a nic, each direction has the whole.
 */
import { parseSize } from '../base/units.js';
import type { TrafficLimits } from '../vsp/index.js';

/** What is read so far; undefined where none was named. */
export type LimitChoice = Pick<TrafficLimits, 'bytesPerSecond' | 'operationsPerSecond'>;

const SIZE = /^\d{1,12}(?:\.\d{1,6})?(?:[kmgt](?:i?b)?)?$/i;

/** The limits with one more of them; undefined when `name` is none. `refuse` throws. */
export function withLimit(
  limits: LimitChoice | undefined,
  name: string,
  value: string,
  refuse: (what: string) => never,
): LimitChoice | undefined {
  if (name === 'bps') {
    const bytes = SIZE.test(value) ? Math.floor(parseSize(value)) : 0;
    if (bytes < 1 || bytes > 1e15) refuse(`bps: '${value}' is no number of bytes a second, such as 10M`);
    return { ...limits, bytesPerSecond: bytes };
  }
  if (name === 'iops') {
    const operations = /^\d{1,9}$/.test(value) ? Number(value) : 0;
    if (operations < 1) refuse(`iops: '${value}' is no number of operations a second, from 1 to 999999999`);
    return { ...limits, operationsPerSecond: operations };
  }
  return undefined;
}

/** The texts that give the same limits again. */
export function formatLimits(limits: LimitChoice | undefined): string[] {
  const { bytesPerSecond: bytes, operationsPerSecond: operations } = limits ?? {};
  return [bytes && `bps=${bytes}`, operations && `iops=${operations}`].filter((text) => typeof text === 'string');
}

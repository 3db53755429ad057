/**
 * Which request of a faulty disk fails, is delayed or stops half way: rules looked at in order, the first one that
 * matches decides. Typed, so that a plan that makes no sense does not compile; checked, for those who write JavaScript.
 */
import type { Clock } from '../../base/clock.js';
import { checkInteger, checkOptionNames } from '../../base/options.js';
import { BLOCK_FUNCTIONS, SECTOR_BYTES, type BlockErrorCode, type BlockFunction } from './contract.js';

/** Functions whose calls a rule can name. */
export type FaultyFunction = 'read' | 'write' | 'flush' | 'discard' | 'write-zeroes';

/** What happens to a request. */
export type Fault =
  /** It ends with this error, and nothing is done. */
  | { readonly error: BlockErrorCode }
  /** It is done, this much later. */
  | { readonly delayNs: bigint }
  /** Its first bytes are done, as far as they are whole blocks; then it ends with 'io'. For reads and writes; others just fail. */
  | { readonly stopAfterBytes: number }
  /** It is done without a fault: an exception from the rules that follow. */
  | 'none';

export interface FaultRule {
  /** Default: every function. */
  readonly on?: FaultyFunction | readonly FaultyFunction[];
  /** Only requests that overlap it. A flush overlaps nothing. */
  readonly range?: { readonly offset: number; readonly lengthBytes: number };
  /** Of the requests that match so far: only the nth (from 1) ... */
  readonly nth?: number;
  /** ... or every nth. */
  readonly every?: number;
  /** Does so at most this often. */
  readonly times?: number;
  readonly fault: Fault;
}

export interface FaultPlan {
  /** Native functions switched off: the device emulates them. Without 'write' it is a read-only backend. */
  readonly without?: readonly Exclude<BlockFunction, 'read'>[];
  /** The medium has blocks of this many bytes, and no request smaller than one. */
  readonly blockBytes?: number;
  readonly rules?: readonly FaultRule[];
  /** For delays. Default: the host's. */
  readonly clock?: Clock;
}

const FAULTY: readonly FaultyFunction[] = ['read', 'write', 'flush', 'discard', 'write-zeroes'];

/** @throws TypeError, RangeError for a plan that makes no sense. */
export function checkFaultPlan(plan: FaultPlan): void {
  checkOptionNames('faultyDisk', plan, ['without', 'blockBytes', 'rules', 'clock']);
  for (const name of plan.without ?? []) {
    if (BLOCK_FUNCTIONS.includes(name) && (name as string) !== 'read') continue;
    throw new TypeError(`faultyDisk: '${name}' can't be switched off`);
  }
  const { blockBytes } = plan;
  if (blockBytes !== undefined) {
    checkInteger('blockBytes', blockBytes, SECTOR_BYTES, 1024 * 1024);
    if (!Number.isInteger(Math.log2(blockBytes))) throw new RangeError('blockBytes: a power of two is wanted');
  }
  for (const rule of plan.rules ?? []) {
    checkOptionNames('faultyDisk rule', rule, ['on', 'range', 'nth', 'every', 'times', 'fault']);
    for (const name of functionsOf(rule)) {
      if (!FAULTY.includes(name)) throw new TypeError(`faultyDisk rule: there is no function '${name}'`);
    }
    for (const name of ['nth', 'every', 'times'] as const) {
      if (rule[name] !== undefined) checkInteger(name, rule[name], 1, Number.MAX_SAFE_INTEGER);
    }
    const { fault } = rule;
    if (typeof fault === 'object' && 'stopAfterBytes' in fault && fault.stopAfterBytes % SECTOR_BYTES !== 0) {
      throw new RangeError(`stopAfterBytes: a multiple of ${SECTOR_BYTES} is wanted`);
    }
  }
}

/** The rules of one opened disk, with their counts. */
export class FaultRules {
  readonly #rules: { readonly rule: FaultRule; matched: number; done: number }[];

  constructor(rules: readonly FaultRule[]) {
    this.#rules = rules.map((rule) => ({ rule, matched: 0, done: 0 }));
  }

  /** What is to happen to a request; undefined: nothing. */
  decide(name: FaultyFunction, offset: number, lengthBytes: number): Exclude<Fault, 'none'> | undefined {
    for (const state of this.#rules) {
      const { on, range, nth, every, times, fault } = state.rule;
      if (on !== undefined && !functionsOf(state.rule).includes(name)) continue;
      if (range && (offset >= range.offset + range.lengthBytes || offset + lengthBytes <= range.offset)) continue;
      state.matched++;
      if (nth !== undefined && state.matched !== nth) continue;
      if (every !== undefined && state.matched % every !== 0) continue;
      if (times !== undefined && state.done >= times) continue;
      state.done++;
      return fault === 'none' ? undefined : fault;
    }
    return undefined;
  }
}

function functionsOf(rule: FaultRule): readonly FaultyFunction[] {
  if (rule.on === undefined) return FAULTY;
  return typeof rule.on === 'string' ? [rule.on] : rule.on;
}

/**
 * One request on its way through the provider. Calls are used again and again, and each has its completion callback
 * made once, so that a request in the hot path makes no object here.
 */
import type { IoVector } from '../../memory/io-vector.js';
import { BLOCK_FUNCTIONS, type BlockDone, type BlockError, type BlockFunction } from './contract.js';
import { RangeEntry } from './range-lock.js';

/** A function's place in BLOCK_FUNCTIONS. */
export const READ = place('read');
export const WRITE = place('write');
export const FLUSH = place('flush');
export const DISCARD = place('discard');
export const WRITE_ZEROES = place('write-zeroes');
export const IDENTIFY = place('identify');
export const RESIZE = place('resize');
export const TOPOLOGY = place('topology');

function place(name: BlockFunction): number {
  return BLOCK_FUNCTIONS.indexOf(name);
}

/** What the provider does with a call. */
export interface CallHandler {
  /** Its range is its own now. */
  dispatch(call: BlockCall): void;
  completed(call: BlockCall, error: BlockError | undefined): void;
}

export const nobody: BlockDone = () => {};

export class BlockCall extends RangeEntry {
  kind = 0;
  offset = 0;
  lengthBytes = 0;
  data: IoVector | undefined;
  mayUnmap = false;
  done: BlockDone = nobody;
  startedNs = 0;
  /** Its place among changes, for the flush barrier. */
  order = 0;
  /** It has entered the range lock. */
  locked = false;
  /** It is counted among the changes in flight. */
  ordered = false;
  /** The backend has refused it as unsupported. */
  emulated = false;
  /** Between its start and its end. */
  active = false;
  /** Whoever asked was told its end, and the backend still has it. */
  givenUp = false;
  /** What backend and HEL call at its end. */
  readonly complete: BlockDone;
  readonly #handler: CallHandler;

  constructor(handler: CallHandler) {
    super();
    this.#handler = handler;
    this.complete = (error) => handler.completed(this, error);
  }

  override granted(): void {
    this.#handler.dispatch(this);
  }
}

/** All calls, and those of them that are not in use. */
export class CallPool {
  readonly #handler: CallHandler;
  readonly #all: BlockCall[] = [];
  readonly #free: BlockCall[] = [];

  constructor(handler: CallHandler) {
    this.#handler = handler;
  }

  take(): BlockCall {
    return this.#free.pop() ?? this.#make();
  }

  /** Those that have begun and not ended. */
  active(): BlockCall[] {
    return this.#all.filter((call) => call.active);
  }

  /** Drops what the call holds, and takes it back. */
  give(call: BlockCall): void {
    call.data = undefined;
    call.done = nobody;
    call.mayUnmap = call.locked = call.ordered = call.emulated = call.givenUp = false;
    this.#free.push(call);
  }

  #make(): BlockCall {
    const call = new BlockCall(this.#handler);
    this.#all.push(call);
    return call;
  }
}

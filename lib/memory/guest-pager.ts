/**
 * The pager of a guest memory, checked and typed: missing pages from a snapshot while vCPUs run, and the write intercept
 * (write-intercept.ts). Faults are served by native threads without JavaScript; this file starts, asks and hears how it
 * ended. Host code that touches guest memory asks it first, through AddressSpace.
 */
import { errnoName, VmmError } from '../base/errors.js';
import { loadBinding } from '../kvm/binding.js';
import type { Vm } from '../kvm/index.js';
import { GroupState, type NativeGroupSource, type NativePager, type NativePagerFailure } from '../kvm/native-pager.js';
import type { AddressSpace, PageGuard } from './address-space.js';
import { GROUP_BYTES } from './groups.js';
import { userFaultSupport } from './user-fault.js';

export interface ServeOptions {
  /** Groups to fill in first, the most wanted first; `hotLoaded` resolves with the last of them. */
  readonly hot?: Uint32Array;
  /** Whether the filling in begins at once, or with fill(). Default true. */
  readonly fill?: boolean;
  /** How long one read may take before the machine is given up. */
  readonly readTimeoutMs?: number;
  /** How long host code waits for a page. */
  readonly ensureTimeoutMs?: number;
}

/** What a restore with lazy memory has cost so far; times in ns. */
export interface LoadCost {
  readonly missingGroups: number;
  readonly faults: number;
  readonly retries: number;
  readonly faultNs: number;
  readonly faultMaxNs: number;
}

const READ_TIMEOUT_MS = 30_000;

export class GuestPager implements PageGuard {
  readonly #memory: AddressSpace;
  readonly #native: NativePager;
  readonly #events = new Set<() => void>();
  readonly #states: Uint8Array;
  #ensureTimeoutMs = READ_TIMEOUT_MS;
  #serving = false;
  #failure: VmmError | undefined;
  #closed = false;

  /**
   * @throws VmmError ERR_SNAPSHOT_HOST where this user has no userfaultfd: the name of what is lacking, and the cure.
   */
  constructor(memory: AddressSpace) {
    const { instant, lazy } = userFaultSupport(memory.backing);
    if (instant !== undefined && lazy !== undefined)
      throw lackOf('page faults of guest memory can not be served', lazy);
    const { addon, dispatcher } = loadBinding();
    this.#memory = memory;
    this.#native = new addon.Pager(memory.native);
    this.#states = new Uint8Array(this.#native.states());
    dispatcher.register(this.#native.sourceId, this, (pager) => pager.#hear());
  }

  /** The addon's side of it, for the write intercept. */
  get native(): NativePager {
    return this.#native;
  }

  get memory(): AddressSpace {
    return this.#memory;
  }

  /** The machine whose vCPUs never run again when a group can't be had. */
  guard(vm: Vm): void {
    this.#native.guard(vm.native);
  }

  /**
   * From now on every group comes from the source when it is first touched, and the rest in the background, once that is begun. Once,
   * for memory that nobody has touched.
   *
   * @throws VmmError ERR_SNAPSHOT_HOST where the kernel can't; ERR_STATE when it serves already
   */
  serve(source: NativeGroupSource, options: ServeOptions = {}): void {
    const { hot = new Uint32Array(), readTimeoutMs = READ_TIMEOUT_MS } = options;
    const { lazy } = userFaultSupport(this.#memory.backing);
    if (lazy !== undefined) throw lackOf('memory can not be restored lazily', lazy);
    this.#ensureTimeoutMs = options.ensureTimeoutMs ?? readTimeoutMs;
    this.#native.serve(source, hot, hot.length, readTimeoutMs);
    this.#serving = true;
    this.#memory.guardPages(this);
    if (options.fill ?? true) this.fill();
  }

  /** Begins to fill in what nobody has touched, which takes a core. Idempotent. */
  fill(): void {
    this.#native.fill();
  }

  /**
   * Returns when the bytes are there; the calling thread waits for native threads alone.
   *
   * @throws VmmError ERR_PAGER when they can't be had, or not in time
   */
  ensure(offset: number, length: number): void {
    const states = this.#states;
    const last = Math.floor((offset + length - 1) / GROUP_BYTES);
    for (let group = Math.floor(offset / GROUP_BYTES); group <= last; group++) {
      const state = states[group]!;
      if (state >= GroupState.FAULTED && state < GroupState.FAILED) continue;
      this.#wait(offset, length);
      return;
    }
  }

  /** Resolves when the hot groups are there. @throws VmmError ERR_PAGER */
  async hotLoaded(): Promise<LoadCost> {
    return this.#when((cost, hotMissing) => hotMissing === 0 || cost.missingGroups === 0);
  }

  /** Resolves when everything is there. @throws VmmError ERR_PAGER */
  async complete(): Promise<LoadCost> {
    return this.#when((cost) => cost.missingGroups === 0);
  }

  /** Why guest memory is not whole. */
  get failure(): VmmError | undefined {
    return this.#closed ? this.#failure : this.#noticeFailure();
  }

  /**
   * `listener` is called once for each event: an intercept has ended, groups are there, the machine has failed. While there is one, the
   * pager and all that listens are held, also where nobody holds the machine but by waiting for this.
   */
  onEvent(listener: () => void): () => void {
    const { dispatcher } = loadBinding();
    this.#events.add(listener);
    dispatcher.hold(this);
    return () => {
      if (this.#events.delete(listener)) dispatcher.letGo(this);
    };
  }

  /** How each group came to be there: a copy of GroupState bytes. */
  groupStates(): Uint8Array {
    return this.#states.slice();
  }

  /** For each group 1 if somebody waited for it, or asked for it, before it was filled in: for access counters. */
  touchedGroups(): Uint8Array {
    if (!this.#closed) this.#native.noteTouched();
    return this.#states.map((state) => Number(state === GroupState.FAULTED || state === GroupState.ASKED));
  }

  /** For vm.inspect(): what it does to guest memory; groups, times in ns. */
  inspect(): object {
    if (this.#closed) return { intercept: 'off', isClosed: true };
    const { intercept, load } = this.#native.status();
    const missing = load && { missingGroups: load.missing, faults: load.faults, faultMaxNs: load.faultMaxNs };
    const { phase, saved, stalls, bufferHighWater } = intercept;
    const saving = phase === 'active' && { savedGroups: saved, stalls, bufferHighWater };
    return { intercept: phase, ...saving, ...missing, failure: this.failure?.message ?? null };
  }

  /** The vCPUs must have been stopped. Groups that are still missing can't be had any more. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const { dispatcher } = loadBinding();
    dispatcher.unregister(this.#native.sourceId);
    this.#failure ??= new VmmError('ERR_CLOSED', 'the pager was closed');
    const serving = this.#serving && this.#native.status().load?.missing !== 0;
    this.#native.close();
    // What is missing stays guarded: to touch it would end the process.
    if (!serving) this.#memory.guardPages(undefined);
    for (const listener of [...this.#events]) listener();
    for (let left = this.#events.size; left > 0; left--) dispatcher.letGo(this);
    this.#events.clear();
  }

  #wait(offset: number, length: number): void {
    if (this.#closed) throw new VmmError('ERR_PAGER', 'guest memory: its pager was closed before all of it was there');
    const ensured = this.#native.ensure(offset, length, this.#ensureTimeoutMs);
    if (ensured === 'present') return;
    if (ensured === 'timeout') {
      const what = `${length} bytes of guest memory did not come within ${this.#ensureTimeoutMs} ms`;
      throw new VmmError('ERR_PAGER', what);
    }
    throw this.#noticeFailure() ?? new VmmError('ERR_PAGER', 'guest memory is not whole');
  }

  #hear(): void {
    if (this.#closed) return;
    const { load, failure } = this.#native.status();
    if (failure !== undefined) this.#noticeFailure();
    else if (load?.missing === 0) this.#memory.guardPages(undefined);
    for (const listener of [...this.#events]) listener();
  }

  #noticeFailure(): VmmError | undefined {
    const { failure } = this.#native.status();
    if (failure !== undefined) this.#failure ??= pagerError(failure);
    return this.#failure;
  }

  #cost(): { cost: LoadCost; hotMissing: number } {
    const load = this.#native.status().load;
    if (load === undefined) throw new VmmError('ERR_STATE', 'pager: it serves no source');
    const { missing, hotMissing, faults, retries, faultNs, faultMaxNs } = load;
    return { cost: { missingGroups: missing, faults, retries, faultNs, faultMaxNs }, hotMissing };
  }

  #when(reached: (cost: LoadCost, hotMissing: number) => boolean): Promise<LoadCost> {
    return new Promise((resolve, reject) => {
      const look = (): boolean => {
        if (this.#failure !== undefined) {
          reject(this.#failure);
          return true;
        }
        const { cost, hotMissing } = this.#cost();
        if (!reached(cost, hotMissing)) return false;
        resolve(cost);
        return true;
      };
      if (look()) return;
      const off = this.onEvent(() => {
        if (look()) off();
      });
    });
  }
}

/** A failure of the pager as the error that users see. */
export function pagerError(failure: NativePagerFailure): VmmError {
  const { why, group, file, fileOffset, errnoNumber } = failure;
  const errno = errnoNumber > 0 ? `, ${errnoName(errnoNumber)}` : '';
  const where = `offset ${fileOffset} of the snapshot's memory${file > 0 ? `, ${file} up its chain` : ''}`;
  return new VmmError('ERR_PAGER', `group ${group} of guest memory could not be had: ${why}${errno}, at ${where}`, {
    cause: { why, group, file, fileOffset, errnoNumber },
  });
}

function lackOf(what: string, lack: { readonly name: string; readonly cure: string }): VmmError {
  return new VmmError('ERR_SNAPSHOT_HOST', `${what}: this host lacks ${lack.name}`, { cure: lack.cure });
}

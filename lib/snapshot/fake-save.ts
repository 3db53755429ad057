/** A machine, its writer, its dirty log and its intercept for tests of save.ts: memory is one number a group. */
import type { ManualClock } from '../base/clock.js';
import type { SavedPart } from '../base/saved-state.js';
import type { DirtyGroups, GroupIntercept, GroupWriter, GuestThrottle, SaveSubject } from './save.js';

const US = 1000n;

export interface FakeSaveOptions {
  readonly groups: number;
  readonly clock: ManualClock;
  /** Writes of the guest at each moment at which anything else happens. */
  readonly busy: number;
  readonly random: (below: number) => number;
  /** Time that a group takes to be written. */
  readonly writeUs?: bigint;
  readonly bufferGroups?: number;
  readonly stateUs?: bigint;
}

/** What it should never be asked for is an Error of its own. */
export class FakeSave implements SaveSubject, GroupWriter {
  readonly groups: number;
  readonly bufferGroups: number;
  /** What the guest has in memory, and what the snapshot has. */
  readonly memory: Uint32Array;
  readonly file: Uint32Array;
  /** Memory as it was when the state was saved. */
  instant: Uint32Array | undefined;
  isRunning = true;
  stops = 0;
  /** Called at each step; throws to make it fail. */
  onStep: (what: string) => void = () => undefined;
  readonly #options: FakeSaveOptions;
  readonly #dirty = new Set<number>();
  #isLogged = false;
  /** Groups whose writes are held. */
  #protected = new Set<number>();
  #isArmed = false;
  #written = 0;
  /** Of its writes the guest does this share, and what is left of one. */
  #speed = 1;
  #begun = 0;
  #queue: { group: number; value: number }[] = [];

  constructor(options: FakeSaveOptions) {
    this.#options = options;
    this.groups = options.groups;
    this.bufferGroups = options.bufferGroups ?? options.groups;
    this.memory = new Uint32Array(options.groups);
    this.file = new Uint32Array(options.groups).fill(0xffff_ffff);
  }

  get isClean(): boolean {
    return !this.#isLogged && this.#protected.size === 0 && this.isRunning && this.#speed === 1;
  }

  async stop(): Promise<bigint> {
    await this.#step('stop');
    if (!this.isRunning) throw new Error('stopped twice');
    const startNs = this.#options.clock.nowNs();
    this.isRunning = false;
    this.stops++;
    return startNs;
  }

  async saveState(): Promise<readonly SavedPart[]> {
    if (this.isRunning) throw new Error('the state of a running machine');
    this.#options.clock.advance((this.#options.stateUs ?? 100n) * US);
    await this.#step('state');
    this.instant = this.memory.slice();
    return [{ type: 'fake', version: 1, data: this.#written }];
  }

  async go(): Promise<void> {
    this.isRunning = true;
    await this.#step('go');
  }

  async write(groups: Uint32Array, signal: AbortSignal | undefined): Promise<void> {
    for (const group of groups) {
      signal?.throwIfAborted();
      this.file[group] = this.memory[group]!;
      this.#options.clock.advance((this.#options.writeUs ?? 10n) * US);
      await this.#step('write');
    }
  }

  async copy(groups: Uint32Array): Promise<void> {
    if (groups.length > this.bufferGroups) throw new Error('more than fit');
    for (const group of groups) {
      this.#queue.push({ group, value: this.memory[group]! });
      this.#options.clock.advance(US);
    }
    await this.#step('copy');
  }

  async drained(): Promise<void> {
    await this.#step('drained');
    for (const { group, value } of this.#queue.splice(0)) this.file[group] = value;
  }

  dirtyGroups(): DirtyGroups {
    this.#isLogged = true;
    this.#dirty.clear();
    return {
      take: () => {
        const taken = Uint32Array.from(this.#dirty).sort();
        this.#dirty.clear();
        return taken;
      },
      close: () => (this.#isLogged = false),
    };
  }

  throttle(): GuestThrottle {
    return {
      set: (share) => (this.#speed = 1 - share),
      end: async () => {
        this.#speed = 1;
        await Promise.resolve();
      },
    };
  }

  intercept(): GroupIntercept {
    return {
      protectAhead: async () => {
        for (let group = 0; group < this.groups; group++) this.#protected.add(group);
        await this.#step('protect');
      },
      arm: async () => {
        await this.#step('arm');
        for (let group = 0; group < this.groups; group++) this.#protected.add(group);
        this.#isArmed = true;
      },
      finished: async () => {
        for (let group = 0; group < this.groups; group++) {
          this.#save(group);
          await this.#step('walk');
        }
      },
      release: async () => {
        this.#protected.clear();
        await Promise.resolve();
      },
    };
  }

  #save(group: number): void {
    if (!this.#protected.delete(group) || !this.#isArmed) return;
    this.#queue.push({ group, value: this.memory[group]! });
  }

  /** Between any two things the guest writes. */
  async #step(what: string): Promise<void> {
    await Promise.resolve();
    this.onStep(what);
    if (!this.isRunning) return;
    this.#begun += this.#options.busy * this.#speed;
    for (; this.#begun >= 1; this.#begun--) {
      const group = this.#options.random(this.groups);
      this.#save(group);
      this.memory[group] = ++this.#written;
      if (this.#isLogged) this.#dirty.add(group);
    }
  }
}

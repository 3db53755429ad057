/**
 * A simulated PIT, guest and event loop on one ManualClock, for tests: PitPort with KVM's behaviour as arch/x86/kvm/i8254.c has
 * it, and a guest that counts its own ticks and time. It shares no arithmetic with the ledger, so what both agree on is
 * no tautology. Not used by the library itself.
 */
import { ManualClock, type Clock, type Timer } from '../base/clock.js';
import type { PitCalm, PitChange, PitLook, PitOutcome, PitPort, PitReading, TickConditions } from './pit-port.js';

/**
 * The JavaScript thread: what is posted to it, and its timers, wait while it is stalled. Native code and the guest go on.
 */
export class SimulatedEventLoop implements Clock {
  readonly #clock: ManualClock;
  #waiting: (() => void)[] = [];
  #isStalled = false;

  constructor(clock: ManualClock) {
    this.#clock = clock;
  }

  nowNs(): bigint {
    return this.#clock.nowNs();
  }

  wallMs(): number {
    throw new Error('guest time must not look at the wall clock');
  }

  setTimer(delayNs: bigint, callback: () => void): Timer {
    let cancelled = false;
    const timer = this.#clock.setTimer(delayNs, () =>
      this.post(() => {
        if (!cancelled) callback();
      }),
    );
    return {
      cancel: () => {
        cancelled = true;
        timer.cancel();
      },
    };
  }

  post(callback: () => void): void {
    if (this.#isStalled) this.#waiting.push(callback);
    else callback();
  }

  stall(): void {
    this.#isStalled = true;
  }

  resume(): void {
    this.#isStalled = false;
    for (const callback of this.#waiting.splice(0)) callback();
  }
}

export interface SimulatedMachineOptions {
  readonly minPeriodNs?: bigint;
  /** What the guest's handler takes from tick to acknowledgement. Default 20 us. */
  readonly handlerNs?: bigint;
  /** The guest halts when it has nothing to do. Default true. */
  readonly halts?: boolean;
  /** The end of interrupt is never seen by the host while reinjection is off, as with AVIC. */
  readonly acknowledgementsHidden?: boolean;
}

export class SimulatedMachine implements PitPort {
  readonly clock = new ManualClock({ startNs: 5_000_000_000n });
  readonly loop = new SimulatedEventLoop(this.clock);
  readonly minPeriodNs: bigint;
  onExpired: ((outcome: PitOutcome) => void) | undefined;
  onStirred: (() => void) | undefined;

  /** What the guest counted for itself: ticks, and its time in PIT cycles by the reload value that each tick was fired with. */
  guestTicks = 0n;
  guestCycles = 0n;
  /** Single ticks of one-shot modes, which are no time. */
  guestSingleTicks = 0n;
  /** When each tick was fired and taken, for checks on rates. */
  readonly firedAtNs: bigint[] = [];
  readonly takenAtNs: bigint[] = [];
  /** How often the host loaded channel 0, and asked for anything at all. */
  loads = 0;
  changes = 0;
  reads = 0;
  maskLooks = 0;
  conditionLooks = 0;
  /** Of native code's, in place of JavaScript's. */
  watchLooks = 0;
  handlerNs: bigint;
  acknowledgementsHidden: boolean;
  /** The next change finds channel 2 in use. */
  busyChanges = 0;

  // The kernel's side.
  #count = 0;
  #mode = 0;
  #latch = 0;
  #midWrite = false;
  #lowByte = 0;
  #periodic = false;
  #periodNs = 0n;
  #startedNs = 0n;
  #timer: Timer | undefined;
  #reinject = true;
  #pending = 0;
  #irqAck = true;
  #acknowledged = 0n;
  #expiry: Timer | undefined;
  #closed = false;
  #changing = false;
  #onAcknowledge: (() => void) | undefined;
  #watch: Timer | undefined;
  #look: PitLook | undefined;

  // The guest's side.
  readonly #halts: boolean;
  /** The reload value that the guest believes in, and what the edge that waits, or is served, was fired with. */
  #guestCount = 0;
  #irrCycles: number | undefined;
  #inServiceCycles: number | undefined;
  #handlerLeftNs = 0n;
  #handlerStartedNs = 0n;
  #handler: Timer | undefined;
  #masked = false;
  #paused = false;
  #starved = false;
  #robbed = false;
  #cpuNs = 0n;
  #cpuSinceNs: bigint | undefined;

  constructor(options: SimulatedMachineOptions = {}) {
    this.minPeriodNs = options.minPeriodNs ?? 200_000n;
    this.handlerNs = options.handlerNs ?? 20_000n;
    this.#halts = options.halts ?? true;
    this.acknowledgementsHidden = options.acknowledgementsHidden ?? false;
    this.#accountCpu();
  }

  // --- The guest ---

  /** A whole reload: control word, low byte, high byte. 0 stands for 65536. */
  program(value: number, mode = 2): void {
    this.writeControlWord(mode);
    this.writeLowByte(value & 0xff);
    this.writeHighByte(value >> 8);
  }

  writeControlWord(mode: number): void {
    this.#mode = mode;
    this.#midWrite = false;
  }

  writeLowByte(byte: number): void {
    this.#latch = byte;
    this.#lowByte = byte;
    this.#midWrite = true;
  }

  writeHighByte(byte: number): void {
    this.#midWrite = false;
    this.#guestCount = (byte << 8) | this.#lowByte || 65536;
    this.#load(this.#guestCount);
  }

  /** A reload of one byte, with the access mode 'low byte only': KVM's write_latch stays as it is. */
  programLowByteOnly(byte: number, mode = 2): void {
    this.#mode = mode;
    this.#midWrite = false;
    this.#guestCount = byte || 65536;
    this.#load(this.#guestCount);
  }

  /** What the guest reads when it latches channel 0 (pit_get_count in mode 2). */
  latchedCount(): number {
    if (this.#timer === undefined || this.#count === 0) return this.#count & 0xffff;
    const elapsedNs = this.clock.nowNs() - this.#startedNs;
    const cycles = Number((elapsedNs * 1_193_181n) / 1_000_000_000n);
    return (this.#count - (cycles % this.#count)) & 0xffff;
  }

  mask(masked: boolean): void {
    this.#masked = masked;
    // kvm_pit's mask notifier: unmasking resets the kernel's backlog.
    if (!masked && this.#reinject) this.#resetReinject();
    this.#serve();
  }

  // --- The host ---

  pause(paused: boolean): void {
    this.#accountCpu();
    this.#paused = paused;
    this.#accountCpu();
    this.#runOrStop();
  }

  /** The vCPU's thread gets no CPU, though it wants it. */
  starve(starved: boolean): void {
    this.#accountCpu();
    this.#starved = starved;
    this.#accountCpu();
    this.#runOrStop();
  }

  /** The host itself gets no CPU from the machine that it runs on: nothing runs, and the vCPU's thread seems to. */
  rob(robbed: boolean): void {
    this.#accountCpu();
    this.#robbed = robbed;
    this.#accountCpu();
    this.#runOrStop();
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#expiry?.cancel();
    this.#watch?.cancel();
    this.#handler?.cancel();
  }

  /** Channel 0 as another machine left it, as KVM_SET_PIT2 restores it: the period restarts, no backlog. */
  restore(other: SimulatedMachine): void {
    this.#mode = other.#mode;
    this.#latch = other.#latch;
    this.#guestCount = other.#guestCount;
    this.#load(other.#count);
  }

  get reinject(): boolean {
    return this.#reinject;
  }

  /** The guest's own time in ns, by its own count. */
  get guestNs(): bigint {
    return (this.guestCycles * 1_000_000_000n) / 1_193_182n;
  }

  /** Advances the clock in steps, letting promises settle after each. */
  async run(ns: bigint, stepNs = 250_000n): Promise<void> {
    for (let left = ns; left > 0n; left -= stepNs) {
      this.clock.advance(left < stepNs ? left : stepNs);
      for (let turn = 0; turn < 4; turn++) await Promise.resolve();
    }
  }

  // --- PitPort ---

  delivered(): bigint {
    return this.#acknowledged;
  }

  read(): PitReading {
    this.reads++;
    return { count: this.#count, mode: this.#mode, latch: this.#latch, midWrite: this.#midWrite };
  }

  conditions(masks: boolean): TickConditions {
    if (masks) this.maskLooks++;
    this.conditionLooks++;
    this.#accountCpu();
    return {
      masked: masks ? this.#masked : undefined,
      vcpuCpuNs: [this.#cpuNs],
      halted: [this.#halts && !this.#paused && !this.#starved && this.#inServiceCycles === undefined],
    };
  }

  watch(calm: PitCalm | undefined): void {
    this.#watch?.cancel();
    this.#look = undefined;
    if (calm) this.#watchFrom(calm);
  }

  takeLook(): PitLook | undefined {
    const look = this.#look;
    this.#look = undefined;
    return look;
  }

  #watchFrom(calm: PitCalm): void {
    const { intervalNs, sinceNs, periodNs, expected } = calm;
    this.#watch = this.clock.setTimer(intervalNs - (this.clock.nowNs() % intervalNs), () => {
      this.watchLooks++;
      const nowNs = this.clock.nowNs();
      const ticks = this.#acknowledged - calm.delivered;
      const lagNs = nowNs - sinceNs - ticks * periodNs;
      const isInTime = periodNs === 0n ? ticks === 0n : lagNs <= calm.behindNs && lagNs >= -calm.aheadNs;
      const isSame = this.#count === expected.count && this.#mode === expected.mode && this.#latch === expected.latch;
      if (!isInTime || !isSame || this.#midWrite) {
        this.loop.post(() => this.onStirred?.());
        return;
      }
      this.#accountCpu();
      this.#look = { atNs: nowNs, delivered: this.#acknowledged, vcpuCpuNs: [this.#cpuNs] };
      this.#watchFrom(calm);
    });
  }

  async change(change: PitChange): Promise<PitOutcome> {
    if (this.#closed) throw new Error('closed');
    if (this.#changing) throw new Error('a change is under way');
    this.#changing = true;
    this.changes++;
    this.watch(undefined);
    try {
      if (change.waitForTickNs > 0n) await this.#tickOrTimeout(change.waitForTickNs);
      // Where KVM has this, the outcome reaches JavaScript only when its loop runs.
      const outcome = this.#carryOut(change);
      await new Promise<void>((resolve) => this.loop.post(resolve));
      if (this.#closed) throw new Error('closed');
      return outcome;
    } finally {
      this.#changing = false;
    }
  }

  #tickOrTimeout(waitNs: bigint): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        timer.cancel();
        this.#onAcknowledge = undefined;
        resolve();
      };
      const timer = this.clock.setTimer(waitNs, done);
      this.#onAcknowledge = done;
    });
  }

  #carryOut(change: PitChange): PitOutcome {
    const at = { atNs: this.clock.nowNs(), delivered: this.#acknowledged };
    if (this.busyChanges > 0) {
      this.busyChanges--;
      return { result: 'busy', ...at };
    }
    const { expected } = change;
    const same = this.#count === expected.count && this.#mode === expected.mode && this.#latch === expected.latch;
    if (!same || this.#midWrite) return { result: 'changed', ...at, reading: this.read() };
    this.#expiry?.cancel();
    this.#expiry = undefined;
    if (change.reinject !== undefined && change.reinject !== this.#reinject) {
      this.#reinject = change.reinject;
      if (change.reinject) this.#resetReinject();
    }
    if (change.load) {
      this.loads++;
      this.#latch = change.load.latch;
      this.#load(change.load.count);
    }
    const { expiry } = change;
    if (expiry) {
      const holds = { count: this.#count, mode: this.#mode, latch: this.#latch };
      this.#expiry = this.clock.setTimer(expiry.afterNs, () => {
        const outcome = this.#carryOut({ expected: holds, load: expiry.load, waitForTickNs: 0n });
        this.loop.post(() => this.onExpired?.(outcome));
      });
    }
    return { result: 'applied', ...at, heldNs: 0n };
  }

  // --- KVM's timer ---

  /** pit_load_count and create_pit_timer. */
  #load(count: number): void {
    this.#count = count;
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#mode === 5) return;
    const intervalNs = (BigInt(count) * 1_000_000_000n) / 1_193_181n;
    this.#periodic = this.#mode === 2 || this.#mode === 3;
    this.#periodNs = this.#periodic && intervalNs < this.minPeriodNs ? this.minPeriodNs : intervalNs;
    this.#resetReinject();
    this.#startedNs = this.clock.nowNs();
    this.#timer = this.clock.setTimer(intervalNs, () => this.#fire());
  }

  #resetReinject(): void {
    this.#pending = 0;
    this.#irqAck = true;
  }

  /** pit_timer_fn. */
  #fire(): void {
    this.firedAtNs.push(this.clock.nowNs());
    this.#startedNs = this.clock.nowNs();
    this.#timer = this.#periodic ? this.clock.setTimer(this.#periodNs, () => this.#fire()) : undefined;
    if (this.#reinject) this.#pending++;
    this.#inject();
  }

  /** pit_do_work. An edge that finds one pending is coalesced with it. */
  #inject(): void {
    if (this.#reinject) {
      if (!this.#irqAck) return;
      this.#irqAck = false;
    }
    this.#irrCycles ??= this.#periodic ? this.#guestCount : 0;
    this.#serve();
  }

  // --- The guest's processor ---

  get #runs(): boolean {
    return !this.#paused && !this.#starved && !this.#robbed && !this.#closed;
  }

  #serve(): void {
    if (this.#irrCycles === undefined || this.#inServiceCycles !== undefined) return;
    if (!this.#runs || this.#masked) return;
    this.#accountCpu();
    this.#inServiceCycles = this.#irrCycles;
    this.#irrCycles = undefined;
    this.#accountCpu();
    this.#handlerLeftNs = this.handlerNs;
    this.#runOrStop();
  }

  /** Runs, or interrupts, the handler that is under way. */
  #runOrStop(): void {
    if (this.#inServiceCycles === undefined) {
      this.#serve();
      return;
    }
    if (this.#runs && this.#handler === undefined) {
      this.#handlerStartedNs = this.clock.nowNs();
      this.#handler = this.clock.setTimer(this.#handlerLeftNs, () => this.#acknowledge());
    } else if (!this.#runs && this.#handler !== undefined) {
      this.#handler.cancel();
      this.#handler = undefined;
      this.#handlerLeftNs -= this.clock.nowNs() - this.#handlerStartedNs;
    }
  }

  #acknowledge(): void {
    this.#accountCpu();
    if (this.#inServiceCycles === 0) this.guestSingleTicks++;
    else this.guestTicks++;
    this.guestCycles += BigInt(this.#inServiceCycles ?? 0);
    this.takenAtNs.push(this.clock.nowNs());
    this.#inServiceCycles = undefined;
    this.#handler = undefined;
    this.#accountCpu();
    if (!this.acknowledgementsHidden || this.#reinject) this.#acknowledged++;
    if (this.#reinject) {
      // kvm_pit_ack_irq
      this.#irqAck = true;
      if (this.#pending > 0 && --this.#pending > 0) this.#inject();
    }
    this.#serve();
    this.#onAcknowledge?.();
  }

  /** Adds up the vCPU thread's CPU time: all the time that it runs, or only the handler's when it halts in between. */
  #accountCpu(): void {
    const nowNs = this.clock.nowNs();
    if (this.#cpuSinceNs !== undefined) this.#cpuNs += nowNs - this.#cpuSinceNs;
    const busy = this.#robbed ? !this.#halts : this.#runs && (!this.#halts || this.#inServiceCycles !== undefined);
    this.#cpuSinceNs = busy ? nowNs : undefined;
  }
}

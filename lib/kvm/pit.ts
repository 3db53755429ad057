/**
 * The kernel's PIT as it is steered from outside: acknowledged ticks, what channel 0 holds, and changes that no write of
 * the guest's can collide with. Mechanism only: which frequency, when and why is decided in lib/time, whose PitPort this
 * is but for the conditions that a machine adds.
 */
import { readFileSync } from 'node:fs';
import { VmmError } from '../base/errors.js';
import { Irqchip } from '../abi/kvm.js';
import { loadBinding } from './binding.js';
import type { NativePit, NativePitCalm, NativePitChange, NativePitLoad, NativePitReading } from './native-pit.js';
import type { Vm } from './vm.js';

/** A reload value and the mark that goes with it, in the channel's write latch. */
export type PitLoad = NativePitLoad;

/** Channel 0, as KVM_GET_PIT2 tells it. */
export type PitReading = NativePitReading;

/**
 * One change: carried out natively with every vCPU held outside the guest, or not at all. It ends the expiry of the change
 * before it, also when it loads nothing: with neither `load` nor `reinject` it sets a new expiry alone.
 */
export interface PitChange {
  /** What channel 0 must still hold; if it holds something else the guest came first, and nothing is changed. */
  readonly expected: PitLoad & { readonly mode: number };
  /** The reload value to fire with, and the mark that goes with it. Undefined: only reinjection changes. */
  readonly load?: PitLoad;
  /**
   * Whether the kernel replays ticks that the guest did not take (KVM_REINJECT_CONTROL). Undefined: left as it is. Any
   * load forgets those owed.
   */
  readonly reinject?: boolean;
  /** How long to wait for an acknowledged tick, so that the change comes just after one. 0n: at once. */
  readonly waitForTickNs: bigint;
  /**
   * After this time native code loads `load` by itself, without JavaScript, unless a further change came first. It makes
   * the same checks. Undefined: the change stands until the next one.
   */
  readonly expiry?: { readonly afterNs: bigint; readonly load: PitLoad };
}

/** Times are on the clock of process.hrtime.bigint(). */
export type PitOutcome =
  /** Done at `atNs`; `delivered` is the counter at that moment, the vCPUs being held for `heldNs`. */
  | { readonly result: 'applied'; readonly atNs: bigint; readonly delivered: bigint; readonly heldNs: bigint }
  /** The guest had changed channel 0, or is in the middle of it: nothing was done, here is what it holds. */
  | { readonly result: 'changed'; readonly atNs: bigint; readonly delivered: bigint; readonly reading: PitReading }
  /** Channel 2 runs a one-shot count that a load would disturb, or a vCPU did not come out. Nothing was done. */
  | { readonly result: 'busy'; readonly atNs: bigint; readonly delivered: bigint };

/** What native code finds, look after look, as long as nothing happens to the guest's time. */
export type PitCalm = NativePitCalm;

/** A look of native code's that found nothing. */
export interface PitLook {
  readonly atNs: bigint;
  readonly delivered: bigint;
  readonly vcpuCpuNs: readonly bigint[];
}

interface Waiting {
  readonly resolve: (outcome: PitOutcome) => void;
  readonly reject: (error: Error) => void;
}

export class KvmPit {
  /** The shortest period the kernel fires at, in ns. */
  readonly minPeriodNs: bigint = (minPeriodNs ??= readMinPeriodNs());
  /** Called when an expiry was carried out, or when it found that the guest had changed channel 0 first. */
  onExpired: ((outcome: PitOutcome) => void) | undefined;
  /** Called once after a watch() when what it looks at is no longer calm; that watch is over then. */
  onStirred: (() => void) | undefined;
  readonly #native: NativePit;
  readonly #vm: Vm;
  #waiting: Waiting | undefined;

  /** Made by {@link Vm.openPit}. */
  constructor(native: NativePit, vm: Vm) {
    this.#native = native;
    this.#vm = vm;
    loadBinding().dispatcher.register(native.sourceId, this, (pit) => pit.#serve());
  }

  /** The ticks that the guest has acknowledged since the PIT was opened: exact, and read without stopping anything. */
  delivered(): bigint {
    return this.#native.delivered();
  }

  /** KVM_GET_PIT2, while the guest runs or not. @throws KvmError */
  read(): PitReading {
    return this.#native.read();
  }

  /**
   * Carries out a change, one at a time.
   *
   * @throws TypeError, RangeError for numbers out of the 8254's and the kernel's bounds; VmmError ERR_STATE while a
   *   change is under way, ERR_CLOSED when the machine is closed before its end; KvmError
   */
  async change(change: PitChange): Promise<PitOutcome> {
    this.#native.change(change satisfies NativePitChange);
    const { dispatcher } = loadBinding();
    dispatcher.hold(this);
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting = { resolve, reject };
      });
    } finally {
      dispatcher.letGo(this);
    }
  }

  /**
   * Looks at the PIT from native code, without JavaScript, until it is no longer as `calm` says; `onStirred` follows then.
   * Undefined, and any change(): no more.
   *
   * @throws TypeError, RangeError for numbers out of bounds.
   */
  watch(calm: PitCalm | undefined): void {
    this.#native.watch(calm);
  }

  /** The last look of the present watch, once. */
  takeLook(): PitLook | undefined {
    const look = this.#native.takeLook();
    return look && { ...look, vcpuCpuNs: [...look.vcpuCpuNs] };
  }

  #serve(): void {
    if (this.#native.takeStir()) this.onStirred?.();
    for (let taken = this.#native.takeOutcome(); taken !== undefined; taken = this.#native.takeOutcome()) {
      if (taken.result === 'failed') {
        this.#settle((waiting) => waiting.reject(taken.error));
        continue;
      }
      const { expired, result, atNs, delivered, heldNs, count, mode, latch, midWrite } = taken;
      let outcome: PitOutcome;
      if (result === 'applied') outcome = { result, atNs, delivered, heldNs };
      else if (result === 'changed') outcome = { result, atNs, delivered, reading: { count, mode, latch, midWrite } };
      else outcome = { result, atNs, delivered };
      if (expired) this.onExpired?.(outcome);
      else this.#settle((waiting) => waiting.resolve(outcome));
    }
  }

  #settle(how: (waiting: Waiting) => void): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting) how(waiting);
  }

  /**
   * Whether IRQ 0 is masked wherever it leads (PICs and IO-APIC). A PIC's way to the CPU goes on through LINT0 of the
   * first vCPU's local APIC, which can't be read while that runs: one that is masked there shows as not masked here.
   */
  irq0Masked(): boolean {
    return this.#vm.routesOfGsi0.every(({ chip, pin }) => {
      const state = this.#vm.getIrqchip(chip);
      if (chip !== Irqchip.IOAPIC) return ((state[PIC_IMR]! >> pin) & 1) !== 0;
      return (new DataView(state.buffer, state.byteOffset).getUint32(IOAPIC_TABLE + pin * 8, true) & IOAPIC_MASK) !== 0;
    });
  }

  /** Called by the machine's close. */
  detach(): void {
    loadBinding().dispatcher.unregister(this.#native.sourceId);
    this.onExpired = undefined;
    this.onStirred = undefined;
    this.#settle((waiting) => waiting.reject(new VmmError('ERR_CLOSED', 'pit: the machine was closed')));
  }
}

// struct kvm_pic_state, struct kvm_ioapic_state: the mask register, the redirection table and an entry's mask bit.
const PIC_IMR = 2;
const IOAPIC_TABLE = 24;
const IOAPIC_MASK = 1 << 16;

/** Read once: the kernel's file costs more than all else of opening a PIT. */
let minPeriodNs: bigint | undefined;

/** What the kernel sets when its module is not told otherwise. */
const USUAL_MIN_PERIOD_US = 200n;

/** kvm's min_timer_period_us; the usual value where it can't be read. */
export function readMinPeriodNs(path = '/sys/module/kvm/parameters/min_timer_period_us'): bigint {
  let text: string;
  try {
    text = readFileSync(path, 'latin1').trim();
  } catch {
    text = '';
  }
  return (/^\d+$/.test(text) ? BigInt(text) : USUAL_MIN_PERIOD_US) * 1000n;
}

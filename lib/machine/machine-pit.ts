/**
 * A guest's time as users hold it (`vm.pit`): one object for the machine's life, over the controller of each board, which
 * a reset replaces. Listeners, the policy and the time scale go over to the next one; the ledger begins anew with the
 * guest. Everything that is decided about time is decided in lib/time.
 */
import { hostClock } from '../base/clock.js';
import type { Logger } from '../base/logger.js';
import type { SavedPart } from '../base/saved-state.js';
import type { Vcpu } from '../kvm/index.js';
import {
  PitController,
  type PitEvents,
  type PitOptions,
  type PitPolicy,
  type PitPort,
  type PitStatus,
  type PolicyName,
  type ReadMemory,
  saveTime,
  type SavedTime,
} from '../time/index.js';
import type { Board } from './board.js';
import { preferPitWorkers } from './pit-worker.js';

/** A guest's time as it was saved, and what has passed since, by the clock mode of the restore. */
export interface RestoredTime {
  readonly saved: SavedTime;
  readonly passedNs: bigint;
  /** What becomes of the ticks of that time. */
  readonly ticks: 'owed' | 'forgiven';
}

/** The machine's, checked. */
export interface MachinePitConfig {
  readonly name?: string;
  readonly pit: PitOptions;
  readonly logger: Logger;
}

interface Subscription {
  readonly attach: (controller: PitController) => () => void;
  detach: () => void;
}

export class MachinePit {
  readonly #options: PitOptions;
  readonly #readMemory: ReadMemory;
  readonly #logger: Logger;
  readonly #machineName: string | undefined;
  readonly #subscriptions = new Set<Subscription>();
  #policy: PolicyName | PitPolicy | undefined;
  #controller!: PitController;
  #pausedClock: 'count' | 'freeze' = 'count';
  /** What there was to say when the guest ended. */
  #last: PitStatus | undefined;

  constructor({ name, pit, logger }: MachinePitConfig, readMemory: ReadMemory) {
    this.#machineName = name;
    this.#options = pit;
    this.#readMemory = readMemory;
    this.#logger = logger;
  }

  /** Numbers and states of the guest's time: rates in Hz, ticks of the programmed period, lag in ms. */
  status(): PitStatus {
    return this.#last ?? this.#controller.status();
  }

  /**
   * Calls back at once when it happens; the result takes the listener away.
   *
   * @throws TypeError for an event that does not exist.
   * @example vm.pit.on('catch-up', ({ lagMs }) => console.log(`${lagMs} ms behind`));
   */
  on<K extends keyof PitEvents>(name: K, listener: (event: PitEvents[K]) => void): () => void {
    const attach = (controller: PitController): (() => void) => controller.on(name, listener);
    const subscription: Subscription = { attach, detach: attach(this.#controller) };
    this.#subscriptions.add(subscription);
    return () => {
      this.#subscriptions.delete(subscription);
      subscription.detach();
    };
  }

  /** Another policy from now on, while the guest runs. @throws TypeError when it is neither a policy's name nor a function. */
  setPolicy(policy: PolicyName | PitPolicy): void {
    this.#controller.setPolicy(policy);
    this.#policy = policy;
  }

  /** The guest's time against the host's, for a guest that keeps time by ticks: 2 is twice as fast. Default 1. */
  get timeScale(): number {
    return this.#controller.timeScale;
  }

  /** @throws RangeError outside 0.1 to 10, or what the kernel can fire of the programmed rate. */
  set timeScale(factor: number) {
    this.#controller.timeScale = factor;
  }

  /** The machine's: a board was made, and what there was before it has gone. `restored`: its channel 0 has been restored. */
  attach(board: Board, restored?: RestoredTime): void {
    this.#last = undefined;
    const before = this.#controller as PitController | undefined;
    const timeScale = before?.timeScale ?? this.#options.timeScale;
    const savedPolicy = restored?.saved.policy === 'custom' ? undefined : restored?.saved.policy;
    const policy = this.#policy ?? savedPolicy ?? this.#options.policy;
    this.#controller = new PitController({
      // Native code tells its times on this clock, so no other will do.
      clock: hostClock,
      machineName: this.#machineName,
      port: pitPort(board),
      pit: {
        ...this.#options,
        ...(policy === undefined ? {} : { policy }),
        ...(timeScale === undefined ? {} : { timeScale }),
      },
      readMemory: this.#readMemory,
      logger: this.#logger,
      ...(restored ? { state: restored.saved.controller } : {}),
    });
    if (restored) this.#controller.passTime(restored.passedNs, restored.ticks);
    this.#preferWorkerOnce(this.#controller);
    for (const subscription of this.#subscriptions) subscription.detach = subscription.attach(this.#controller);
  }

  /** Before the first raised rate, so that a guest which never lags costs nothing. */
  #preferWorkerOnce(controller: PitController): void {
    const remove = controller.on('catch-up', () => {
      remove();
      this.#logger.log('debug', 'pit: ticks are fired with precedence', { workers: preferPitWorkers() });
    });
  }

  /** The machine's: the CPUs are about to run, for the first time or again. */
  run(): void {
    this.#controller.start();
    this.#controller.resume();
  }

  /** The machine's: the CPUs have parked. */
  pause(clock: 'count' | 'freeze'): void {
    this.#pausedClock = clock;
    this.#controller.pause({ clock });
  }

  /** The machine's, paused: resolves when save() can be called. */
  settled(): Promise<void> {
    return this.#controller.settled();
  }

  /** The machine's, while it is paused and settled: for a snapshot. */
  save(): SavedPart {
    return saveTime(this.#controller);
  }

  /** The machine's: they did not run after all. */
  pauseAgain(): void {
    this.#controller.pause({ clock: this.#pausedClock });
  }

  /** The machine's: the guest has ended. The status stays. */
  close(): void {
    this.#last ??= this.#controller.status();
    this.#controller.close();
  }
}

/** The kernel's PIT and what the board knows of the guest's ability to take ticks. */
function pitPort(board: Board): PitPort {
  const { pit, vcpus } = board;
  return {
    minPeriodNs: pit.minPeriodNs,
    get onExpired() {
      return pit.onExpired;
    },
    set onExpired(callback) {
      pit.onExpired = callback;
    },
    get onStirred() {
      return pit.onStirred;
    },
    set onStirred(callback) {
      pit.onStirred = callback;
    },
    watch: (calm) => pit.watch(calm),
    takeLook: () => pit.takeLook(),
    delivered: () => pit.delivered(),
    read: () => pit.read(),
    change: (change) => pit.change(change),
    conditions: (masks) => ({
      masked: masks ? pit.irq0Masked() : undefined,
      vcpuCpuNs: vcpus.map((vcpu) => vcpu.counters().threadCpuNs),
      ...(masks ? { halted: vcpus.map(isHalted) } : {}),
    }),
  };
}

/** KVM's own word for it (struct kvm_vcpu_stat_generic, `blocking`), which can be asked for while the vCPU runs. Since Linux 5.15. */
function isHalted(vcpu: Vcpu): boolean {
  return vcpu.stat('blocking') === 1n;
}

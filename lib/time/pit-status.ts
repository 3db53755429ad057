/** What is known of a guest's time, as numbers for people and for inspect(); and the saved state of the controller. */
import { floorDiv, kernelPeriodNs, PIT_HZ, UNITS_PER_NS } from './counts.js';
import type { PolicyName } from './configuration.js';
import type { Episodes } from './episodes.js';
import type { Load } from './guest-program.js';
import type { LedgerState, TickLedger } from './ledger.js';
import type { LossCause, LossCauses } from './loss-causes.js';
import type { PolicyPhase } from './policy.js';
import type { PolicyGuard } from './policy-guard.js';
import type { PitObserver } from './pit-observer.js';
import type { PitSteering } from './pit-steering.js';
import type { TimeBooks } from './time-books.js';
import type { StandDownReason } from './pit-events.js';
import type { SourceState } from './source-health.js';

/**
 * Numbers, not bigints: exact to 2^53. Ticks are whole, and owed = expected - delivered - forgiven holds in them.
 * `expected` is in ticks as they were taken, the owed part in ticks of the programmed period.
 */
export interface PitStatus {
  /** What the guest programmed, 0 without a periodic rate; and what is fired. */
  readonly programmedHz: number;
  readonly firingHz: number;
  readonly phase: PolicyPhase | 'stand-down';
  readonly expected: number;
  readonly delivered: number;
  readonly forgiven: number;
  readonly owed: number;
  /** What is owed, in virtual time. */
  readonly lagMs: number;
  readonly episodes: number;
  readonly storms: number;
  readonly reprograms: number;
  // Beyond the contract:
  readonly policy: PolicyName | 'custom';
  /** The policy's fault, since which the kernel's reinjection stands in for it. */
  readonly policyFault: string | undefined;
  readonly standDownReason: StandDownReason | undefined;
  readonly profile: string;
  /** The rate that the kernel can fire of what was programmed, and whether it is less. */
  readonly nominalHz: number;
  readonly isClamped: boolean;
  readonly maxRateHz: number;
  /** The configured cap was below the nominal rate. */
  readonly capIsClamped: boolean;
  readonly timeScale: number;
  readonly source: SourceState;
  /** By what delivered time is measured. */
  readonly feedback: 'acknowledgements' | 'guest-memory';
  readonly feedbackFault: string | undefined;
  /** How often the guest set the clock that is read from its memory. */
  readonly feedbackJumps: number;
  readonly causes: Readonly<Record<LossCause, { readonly ticks: number; readonly ms: number }>>;
  /** The bound of the storm monitor; undefined while the guest keeps up. */
  readonly stormLimitHz: number | undefined;
  readonly slowDown: 'allowed' | 'refused';
  /** By how much reprogramming between two looks may have made the ledger wrong, at most. */
  readonly uncertainMs: number;
  readonly unseenReprograms: number;
  readonly reinject: boolean;
  /** All acknowledgements, one-shot ticks included. */
  readonly acknowledged: number;
  readonly controlPeriods: number;
  readonly changes: number;
}

/** A controller as JSON, for snapshots. */
export interface PitControllerState {
  readonly version: 1;
  readonly ledger: LedgerState;
  /** The guest's own programming, and what the host had loaded in its place. */
  readonly own: Load & { readonly mode: number };
  readonly inForce: Load;
  readonly isBegun: boolean;
  /** Acknowledged ticks could be counted. */
  readonly heard: boolean;
  readonly slowDownReloads: number;
  readonly episodes: number;
  readonly storms: number;
  readonly reprograms: number;
}

/** What a controller's status is told from. */
export interface StatusSources {
  readonly books: TimeBooks;
  readonly observer: PitObserver;
  readonly steering: PitSteering;
  readonly episodes: Episodes;
  readonly guard: PolicyGuard;
  readonly minPeriodNs: bigint;
  /** With the open window. */
  readonly owed: ReturnType<TimeBooks['owedNow']>;
  readonly timeScale: number;
  readonly acknowledged: bigint;
  readonly looks: number;
}

export function pitStatus(of: StatusSources): PitStatus {
  const { steering, episodes, guard, minPeriodNs, owed } = of;
  const { ledger, causes, storm, health, feedback, feedbackFault, unseen } = of.books;
  const { nominal, bounds, maySlowDown, storms, reprograms } = of.observer;
  const { own, inForce } = steering.program;
  return {
    programmedHz: nominal.periodic ? hzOfCount(own.count) : 0,
    firingHz: nominal.periodic ? 1e9 / Number(kernelPeriodNs(inForce.count, minPeriodNs)) : 0,
    phase: episodes.phase,
    ...ledgerStatus(ledger, owed),
    episodes: episodes.count,
    storms,
    reprograms,
    policy: guard.name,
    policyFault: guard.fault,
    standDownReason: episodes.standDownReason,
    profile: bounds.profile.name,
    nominalHz: nominal.periodic ? nominal.hz : 0,
    isClamped: nominal.isClamped,
    maxRateHz: nominal.periodic ? bounds.maxRateHz : 0,
    capIsClamped: bounds.capIsClamped,
    timeScale: of.timeScale,
    source: health.state,
    feedback: feedback && feedbackFault === undefined ? 'guest-memory' : 'acknowledgements',
    feedbackFault,
    feedbackJumps: feedback?.jumps ?? 0,
    causes: causesStatus(causes),
    stormLimitHz: storm.active ? storm.limitHz : undefined,
    slowDown: maySlowDown ? 'allowed' : 'refused',
    unseenReprograms: unseen,
    reinject: steering.reinjects,
    acknowledged: Number(of.acknowledged),
    controlPeriods: of.looks,
    changes: steering.changes,
  };
}

/** The ledger's part of a status, the window that is open included. */
function ledgerStatus(ledger: TickLedger, now: { readonly deliveredTicks: bigint; readonly owedUnits: bigint }) {
  const owed = ledger.tickUnits === 0n ? 0n : floorDiv(now.owedUnits, ledger.tickUnits);
  return {
    expected: Number(now.deliveredTicks + ledger.forgivenTicks + owed),
    delivered: Number(now.deliveredTicks),
    forgiven: Number(ledger.forgivenTicks),
    owed: Number(owed),
    lagMs: Number(floorDiv(now.owedUnits, UNITS_PER_NS)) / 1e6,
    uncertainMs: Number(ledger.uncertainUnits / UNITS_PER_NS) / 1e6,
  };
}

function causesStatus(causes: LossCauses): PitStatus['causes'] {
  const { paused, masked, notRunning, notAcknowledged } = causes.losses;
  const of = ({ ticks, ns }: { ticks: bigint; ns: bigint }) => ({ ticks: Number(ticks), ms: Number(ns) / 1e6 });
  return {
    paused: of(paused),
    masked: of(masked),
    notRunning: of(notRunning),
    notAcknowledged: of(notAcknowledged),
  };
}

export const hzOfCount = (count: number) => (count === 0 ? 0 : PIT_HZ / count);

/**
 * The time room: a guest's time by changing the frequency of its PIT (US8533709B2). The machine room makes one PitController for
 * each board and gives it a PitPort; users see its status, events, policies and time scale.
 */
export { PitController, type PitControllerOptions } from './pit-controller.js';
export {
  checkPitOptions,
  type FeedbackOptions,
  type PitBounds,
  type PitConfig,
  type PitOptions,
  type PolicyName,
} from './configuration.js';
export type { PitChange, PitOutcome, PitPort, PitReading, TickConditions } from './pit-port.js';
export type { PitControllerState, PitStatus } from './pit-status.js';
export type { LagEvent, PitEvents, StandDownReason } from './pit-events.js';
export type { LedgerView, PitPolicy, PolicyDecision, PolicyInput, PolicyPhase } from './policy.js';
export type { LossCause } from './loss-causes.js';
export type { SourceState } from './source-health.js';
export type { ReadMemory } from './feedback.js';
export { PROFILE_NAMES, PROFILES, type PitProfile, type ProfileName, type SpeedStep } from './profiles.js';
export { catchUpPolicy } from './catch-up-policy.js';
export { discardPolicy, reinjectPolicy } from './simple-policies.js';
export { TickLedger, type LedgerState, type TimeScale } from './ledger.js';
export { PIT_HZ } from './counts.js';
export { loadTime, saveTime, type SavedTime } from './saved-time.js';

/**
 * The room's door: the embedded KVM host, and the probe that says when it is needed.
 * The command and the SDK import from here alone.
 */
import { hostStatus, runScript, startHost, stopHost } from './run.js';

export {
  prepareHostImage,
  runInEmbeddedHost,
  type EmbeddedOptions,
  type ScriptOptions,
  type ScriptResult,
} from './run.js';
export type { SessionEnd } from './session.js';
export { serveCommand, type RunCommand } from './worker.js';
export { toInnerPath, toOuterPath } from './paths.js';
export { findQemu } from './qemu.js';
export { linuxSupport, probeKvm, type KvmReport, type ProbeOptions } from './probe.js';
export type { HostStatus } from './messages.js';

/** The user's embedded KVM host: one for all that user's machines, started on demand, kept warm for a while. */
export const embeddedHost = {
  run: runScript,
  start: startHost,
  status: hostStatus,
  stop: stopHost,
} as const;

/**
 * A machine's counters as Prometheus has them (text format 0.0.4): names end with their unit, what only grows with _total, and
 * every sample has the label `machine`. Rates are whoever reads it's business. It is loaded when it is asked for.
 */
import { Value } from '@sinclair/typebox/value';
import { Counter, Gauge, Registry } from 'prom-client';
import type { PitStatus } from '../time/index.js';
import type { MachineRecord } from './machine-folders.js';
import { Stats } from './schemas.js';

/** Of a metric: its type, what it means, and its labels beside that of the machine. */
type Definition = readonly [type: 'counter' | 'gauge', help: string, ...labels: string[]];

const CALL_LABELS = ['device', 'class', 'function', 'by'] as const;

const METRICS = {
  vivarium_machine_info: ['gauge', '1, of the machine that has the name now', 'id', 'host'],
  vivarium_machine_state: ['gauge', '1 for the state that the machine is in', 'state'],
  vivarium_guest_memory_bytes: ['gauge', 'Memory of the guest'],
  vivarium_vcpu_exits_total: ['counter', 'Returns of KVM_RUN', 'cpu'],
  vivarium_vcpu_exits_by_reason_total: ['counter', 'Exits by KVM_EXIT_*; signals force further ones', 'cpu', 'reason'],
  vivarium_vcpu_exits_answered_total: ['counter', 'Accesses answered by native code or by JavaScript', 'cpu', 'by'],
  vivarium_vcpu_cpu_seconds_total: ['counter', 'CPU time of the thread of a virtual CPU', 'cpu'],
  vivarium_device_calls_total: ['counter', 'Calls of a function of a device that have ended', ...CALL_LABELS],
  vivarium_device_errors_total: ['counter', 'Calls of a function of a device that have failed', ...CALL_LABELS],
  vivarium_device_seconds_total: ['counter', 'Time of all calls, from their arrival to their end', ...CALL_LABELS],
  vivarium_device_bytes_total: ['counter', 'Data that a function of a device has moved', ...CALL_LABELS],
  vivarium_pit_phase: ['gauge', '1 for the phase that the time of the guest is in', 'phase'],
  vivarium_pit_programmed_hertz: ['gauge', 'Rate of ticks that the guest has programmed, 0 without one'],
  vivarium_pit_firing_hertz: ['gauge', 'Rate of ticks that is fired'],
  vivarium_pit_ticks_delivered_total: ['counter', 'Ticks that the guest has taken'],
  vivarium_pit_ticks_forgiven_total: ['counter', 'Ticks that are not made good any more'],
  vivarium_pit_ticks_owed: ['gauge', 'Ticks that the guest is behind, negative when it is ahead'],
  vivarium_pit_lag_seconds: ['gauge', 'What is owed, in time of the guest'],
  vivarium_pit_episodes_total: ['counter', 'How often catching up began'],
  vivarium_pit_storms_total: ['counter', 'How often the guest could not keep up with a raised rate'],
  vivarium_pit_reprograms_total: ['counter', 'How often the guest has programmed the PIT anew'],
  vivarium_process_cpu_seconds_total: ['counter', 'User and system time of the process that runs the guest'],
  vivarium_process_resident_memory_bytes: ['gauge', 'Resident memory of that process'],
  vivarium_viewers: ['gauge', 'Who looks at console and logs'],
  vivarium_snapshots_in_progress: ['gauge', 'Snapshots that are being saved'],
} as const satisfies Record<string, Definition>;

type MetricName = keyof typeof METRICS;
/** Undefined, of a machine that does not tell it: there is no sample. */
type Put = (name: MetricName, value: number | undefined, ...labels: (string | number)[]) => void;

const STATES: readonly Stats['state'][] = ['created', 'running', 'paused', 'stopped', 'failed'];
const PHASES: readonly PitStatus['phase'][] = ['nominal', 'catch-up', 'slow-down', 'stand-down'];

export interface MetricSource {
  readonly record: MachineRecord;
  readonly stats: Stats;
}

/** A machine of another version may tell something else. */
export function isStats(value: unknown): value is Stats {
  return Value.Check(Stats, value);
}

/** All machines in one text. With `failed` it also says how many did not answer. */
export async function metricsText(sources: readonly MetricSource[], failed?: number): Promise<string> {
  const registry = new Registry();
  const metrics = new Map<MetricName, Counter | Gauge>();
  for (const [name, [type, help, ...labels]] of Object.entries(METRICS) as [MetricName, Definition][]) {
    const about = { name, help, labelNames: ['machine', ...labels], registers: [registry] };
    metrics.set(name, type === 'counter' ? new Counter(about) : new Gauge(about));
  }
  for (const { record, stats } of sources) {
    const put: Put = (name, value, ...labels) => {
      if (value === undefined || !Number.isFinite(value)) return;
      const [type, , ...names] = METRICS[name] as Definition;
      const all = Object.fromEntries(names.map((label, at) => [label, labels[at]!]));
      // A counter below 0 is none: what is uncertain at the start may look like one.
      metrics.get(name)!.inc({ machine: record.name, ...all }, type === 'counter' ? Math.max(0, value) : value);
    };
    putMachine(put, record, stats);
    putCpus(put, stats.cpus);
    putDevices(put, stats.devices);
    putPit(put, stats.pit ?? {});
  }
  if (failed !== undefined) {
    const help = 'Machines that did not answer and are left out';
    new Gauge({ name: 'vivarium_scrape_failed', help, registers: [registry] }).set(failed);
  }
  return registry.metrics();
}

function putMachine(put: Put, { id, host }: MachineRecord, stats: Stats): void {
  const { state, memoryBytes, process, viewers, saves = [] } = stats;
  put('vivarium_machine_info', 1, id, host);
  for (const each of STATES) put('vivarium_machine_state', each === state ? 1 : 0, each);
  put('vivarium_guest_memory_bytes', memoryBytes);
  put('vivarium_process_cpu_seconds_total', process.cpuMs / 1e3);
  put('vivarium_process_resident_memory_bytes', process.rssBytes);
  put('vivarium_viewers', viewers);
  put('vivarium_snapshots_in_progress', saves.length);
}

function putCpus(put: Put, cpus: Stats['cpus']): void {
  for (const { id, exits, byReason, counters } of cpus) {
    const { answeredNatively, answeredByScript, threadCpuNs } = counters;
    put('vivarium_vcpu_exits_total', exits, id);
    for (const [reason, count] of Object.entries(byReason)) {
      put('vivarium_vcpu_exits_by_reason_total', count, id, reason);
    }
    put('vivarium_vcpu_exits_answered_total', answeredNatively, id, 'native');
    put('vivarium_vcpu_exits_answered_total', answeredByScript, id, 'script');
    put('vivarium_vcpu_cpu_seconds_total', seconds(threadCpuNs, 1e9), id);
  }
}

function putDevices(put: Put, devices: Stats['devices']): void {
  for (const device of devices) {
    for (const [name, { by, calls, errors, ns, bytes }] of Object.entries(device.functions)) {
      const labels = [device.id, device.class, name, by] as const;
      put('vivarium_device_calls_total', calls, ...labels);
      put('vivarium_device_errors_total', errors, ...labels);
      put('vivarium_device_seconds_total', ns / 1e9, ...labels);
      put('vivarium_device_bytes_total', bytes, ...labels);
    }
  }
}

function putPit(put: Put, pit: Partial<PitStatus>): void {
  if (pit.phase !== undefined) {
    for (const phase of PHASES) put('vivarium_pit_phase', phase === pit.phase ? 1 : 0, phase);
  }
  put('vivarium_pit_programmed_hertz', pit.programmedHz);
  put('vivarium_pit_firing_hertz', pit.firingHz);
  put('vivarium_pit_ticks_delivered_total', pit.delivered);
  put('vivarium_pit_ticks_forgiven_total', pit.forgiven);
  put('vivarium_pit_ticks_owed', pit.owed);
  put('vivarium_pit_lag_seconds', seconds(pit.lagMs, 1e3));
  put('vivarium_pit_episodes_total', pit.episodes);
  put('vivarium_pit_storms_total', pit.storms);
  put('vivarium_pit_reprograms_total', pit.reprograms);
}

function seconds(value: number | undefined, perSecond: number): number | undefined {
  return value === undefined ? undefined : value / perSecond;
}

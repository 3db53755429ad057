/**
 * One guest under one policy through the same troubles: a stop of all its CPUs, then other work that starves them. Sampled
 * the whole time from outside; what the samples say is summary.ts's business.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Machine, type PolicyName } from '#lib/index.js';
import { startLoad } from '../../bench/lib/load.js';
import { tickingBoot, TICKING_MEMORY, TICKS_AT, WORK_AT } from '../../bench/lib/pit-guest.js';
import type { PolicyRun, Sample, Span } from './summary.js';

export interface Plan {
  readonly rateHz: number;
  readonly sampleMs: number;
  /** How long each part of the run takes: undisturbed, stopped, left alone, overloaded, left alone. */
  readonly calmMs: number;
  readonly stopMs: number;
  readonly afterStopMs: number;
  readonly overloadMs: number;
  readonly afterOverloadMs: number;
  /** Busy processes for each of the host's CPUs in the overload. */
  readonly loadPerCpu: number;
}

/** The guest ticks this long before anything is looked at. */
const WARM_UP_TICKS = 500;

/**
 * Runs the plan once and resolves to its samples.
 *
 * @throws Error when the guest's own count of ticks is not what KVM reported.
 */
export async function runPolicy(policy: PolicyName, plan: Plan): Promise<PolicyRun> {
  const vm = await Machine.create({
    memory: TICKING_MEMORY,
    boot: tickingBoot(plan.rateHz),
    pit: { policy },
  });
  try {
    await vm.start();
    while (vm.pit.status().delivered < WARM_UP_TICKS) await delay(plan.sampleMs);
    const sampler = startSampler(vm, plan.sampleMs);
    const during = async (action: () => Promise<void>): Promise<Span> => {
      const fromMs = sampler.nowMs();
      await action();
      return { fromMs, toMs: sampler.nowMs() };
    };
    await delay(plan.calmMs);
    const stop = await during(async () => {
      await vm.pause();
      await delay(plan.stopMs);
      await vm.resume();
    });
    await delay(plan.afterStopMs);
    const overload = await during(async () => {
      const load = startLoad(plan.loadPerCpu);
      await delay(plan.overloadMs);
      await load.stop();
    });
    await delay(plan.afterOverloadMs);
    const samples = await sampler.stop();
    await vm.pause();
    const counted = readU32(vm, TICKS_AT);
    const { acknowledged } = vm.pit.status();
    if (Math.abs(counted - acknowledged) > 1) {
      throw new Error(`the guest counted ${counted} ticks, KVM reported ${acknowledged} acknowledgements`);
    }
    return { policy, rateHz: plan.rateHz, samples, stop, overload };
  } finally {
    await vm.close();
  }
}

function startSampler(vm: Machine, sampleMs: number) {
  const startedMs = performance.now();
  const nowMs = () => performance.now() - startedMs;
  const samples: Sample[] = [];
  let running = true;
  const take = () => {
    const { lagMs, forgiven, nominalHz, acknowledged } = vm.pit.status();
    // What a policy has forgiven is no longer owed, but the guest's clock is behind by it all the same.
    const behindMs = lagMs + (nominalHz === 0 ? 0 : (forgiven / nominalHz) * 1000);
    samples.push({ atMs: nowMs(), lagMs: behindMs, ticks: acknowledged, work: readU32(vm, WORK_AT) });
  };
  const loop = (async () => {
    while (running) {
      take();
      await delay(sampleMs);
    }
  })();
  return {
    nowMs,
    /** Ends with a last sample. */
    async stop(): Promise<readonly Sample[]> {
      running = false;
      await loop;
      take();
      return samples;
    },
  };
}

function readU32(vm: Machine, gpa: number): number {
  const bytes = vm.memory.read(gpa, 4);
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
}

/**
 * The shape of a bench program and of what it reports. A program measures and returns; main.ts prints and saves.
 */
import { readFileSync } from 'node:fs';
import os from 'node:os';
import type { Summary } from './stats.js';

/**
 * What a figure was measured on: flat guests on this machine's KVM; stock Linux inside the embedded host, where only
 * ratios mean something; or hardware KVM.
 */
export type Stage = 'flat' | 'embedded' | 'hardware';

/** A program of two stages has figures of both, each with its own meaning: the table of SPECIFICATION.md says which has which. */
export type Stages = Stage | 'flat+embedded';

export interface BenchOptions {
  /** How often each measurement is repeated; each program has its own default. */
  readonly runs: number | undefined;
  /** For programs that measure for a time, and that set a rate; the others take no notice. */
  readonly seconds: number | undefined;
  readonly rateHz: number | undefined;
  /** Which of a program's stages to measure: all of them, or the one that --stage names. */
  readonly stages: readonly Stage[];
  /** Where progress goes; the last line of standard output belongs to the result. */
  readonly progress: (line: string) => void;
}

/** Summaries by name; the unit ends the name (Us, Ms, PerSecond, MiB, Ratio). Plain numbers were taken once. */
export type Figures = Readonly<Record<string, Summary | number>>;

export interface BenchResult {
  readonly name: string;
  readonly host: HostFacts;
  readonly stage: Stages;
  /** What ours was measured against, in the same run. */
  readonly peers: Readonly<Record<string, Figures>>;
  readonly metrics: Figures;
  readonly runs: number;
}

export interface Bench {
  readonly name: string;
  readonly stage: Stages;
  /** One line for people: what is measured and what is to be reached. */
  readonly about: string;
  run(options: BenchOptions): Promise<Omit<BenchResult, 'name' | 'host' | 'stage'>>;
}

export interface HostFacts {
  readonly cpu: string;
  readonly cpus: number;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly node: string;
  /** Whose KVM: this machine's, or that of the embedded host on it. */
  readonly kvm: 'native' | 'embedded';
  readonly loadAverage: number;
}

/** What a reader must know of the machine to make sense of a figure. */
export function hostFacts(): HostFacts {
  const model = /^model name\s*: (.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
  return {
    cpu: model ?? 'unknown',
    cpus: os.availableParallelism(),
    memoryGiB: Number((os.totalmem() / 2 ** 30).toFixed(1)),
    kernel: os.release(),
    node: process.version,
    kvm: process.env['VIVARIUM_HOST'] === 'embedded' ? 'embedded' : 'native',
    loadAverage: Number(os.loadavg()[0]!.toFixed(2)),
  };
}

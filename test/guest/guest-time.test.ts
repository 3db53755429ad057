/**
 * A stock Debian is stopped for five seconds: what becomes of its clock and of its main loop under a policy, and that a
 * Debian that does not keep time by the PIT is left alone. Times are held against each other, never against a limit.
 */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { embeddedHost, probeKvm } from '../../lib/host/index.js';
import type { PitEvents, PitStatus } from '../../lib/time/index.js';
import { vivarium } from '../lib/command.js';

const PROGRAM = path.resolve(import.meta.dirname, '../lib/guest-time.mjs');
/** With these a stock Debian keeps time by PIT ticks alone. */
const BY_PIT = 'nohz=off highres=off nolapic_timer lapic=notscdeadline clocksource=jiffies';
const STOP_S = 5;
/** What a turn of the guest's main loop takes at least, of its own time. */
const TURN_S = 0.1;
/** For a machine that is busy; on a calm one a test takes 40 s in the embedded host. */
const LIMIT_MS = 560_000;

/** A told turn of the main loop: how far the guest's clock was behind, against before the stop, and when since its end. */
interface Turn {
  readonly number: number;
  readonly guestS: number;
  readonly behindS: number;
  readonly sinceS: number;
}

interface Result {
  readonly stopS: number;
  readonly turnsBefore: readonly Turn[];
  readonly turnsUntilSettled: readonly Turn[];
  readonly turnsAfter: readonly Turn[];
  readonly events: readonly { readonly name: keyof PitEvents; readonly sinceS: number }[];
  readonly before: PitStatus;
  readonly after: PitStatus;
  readonly complaints: number;
  readonly reason: string;
}

/** Runs the program where Linux guests run: on this machine's KVM, else inside the embedded host. */
async function stopped(policy: string, words: string): Promise<Result> {
  const args = [policy, String(STOP_S * 1000), words];
  const signal = AbortSignal.timeout(LIMIT_MS - 10_000);
  const { linuxGuests } = await probeKvm();
  const { status, stdout, stderr } = linuxGuests
    ? { status: 0, ...(await promisify(execFile)(process.execPath, [PROGRAM, ...args], { signal })) }
    : await embeddedHost.run(PROGRAM, { args, signal });
  expect(status, stderr).toBe(0);
  const result = JSON.parse(stdout) as Result;
  expect(result.stopS).toBeGreaterThanOrEqual(STOP_S);
  return result;
}

const behind = (turns: readonly Turn[]): number[] => turns.map(({ behindS }) => behindS);

describe('a Debian that keeps time by the PIT, stopped for 5 s', { timeout: LIMIT_MS }, () => {
  it('agrees with the host again under catch-up, and its main loop runs meanwhile', async () => {
    const { turnsBefore, turnsUntilSettled: turns, events, before, after, ...rest } = await stopped('catch-up', BY_PIT);
    // Most of the stop was missing at first, or nothing would be shown.
    expect(turns[0]!.behindS).toBeGreaterThan(STOP_S / 2);
    // Within a twentieth of the stop: on a slow host a turn is told late by as much as JavaScript is busy, 0.1 s and more.
    expect(Math.abs(turns.at(-1)!.behindS)).toBeLessThan(STOP_S / 20);
    const names = events.filter(({ sinceS }) => sinceS > 0).map(({ name }) => name);
    expect(names).toContain('catch-up');
    expect(names).toContain('nominal');
    expect(names).not.toContain('gave-up');
    expect(after.causes.paused.ms - before.causes.paused.ms).toBeGreaterThan(0.98 * STOP_S * 1000);
    expect(after.forgiven).toBe(before.forgiven);

    // Of the guest's own time 5 s and more went by in the catch-up: so many turns of its loop, and no two far apart.
    const told = [turnsBefore.at(-1)!, ...turns];
    expect(told.at(-1)!.number - told[0]!.number).toBeGreaterThan(STOP_S / TURN_S / 2);
    const steps = told.slice(1).map(({ guestS }, index) => guestS - told[index]!.guestS);
    expect(Math.max(...steps)).toBeLessThan(STOP_S / 2);
    expect(rest).toMatchObject({ complaints: 0, reason: 'poweroff' });
  });

  it('stays behind by the stop under discard', async () => {
    const { turnsAfter, events, before, after, ...rest } = await stopped('discard', BY_PIT);
    expect(turnsAfter.length).toBeGreaterThanOrEqual(5);
    expect(Math.min(...behind(turnsAfter))).toBeGreaterThan(0.9 * STOP_S);
    expect(events.map(({ name }) => name)).not.toContain('catch-up');
    expect((after.forgiven - before.forgiven) / after.programmedHz).toBeGreaterThan(0.9 * STOP_S);
    expect(rest).toMatchObject({ complaints: 0, reason: 'poweroff' });
  });
});

describe('a tickless Debian, as it boots by default', { timeout: LIMIT_MS }, () => {
  it('is left alone, and none the worse for a stop', async () => {
    const { turnsAfter, events, before, after, ...rest } = await stopped('catch-up', '');
    expect(before).toMatchObject({ phase: 'stand-down', programmedHz: 0, firingHz: 0 });
    expect(after).toMatchObject({ phase: 'stand-down', programmedHz: 0, episodes: 0, changes: before.changes });
    expect(events.map(({ name }) => name)).not.toContain('catch-up');
    // It has its time from kvm-clock, which went on.
    expect(Math.min(...behind(turnsAfter).map(Math.abs))).toBeLessThan(STOP_S / 20);
    expect(turnsAfter.length).toBeGreaterThanOrEqual(5);
    expect(rest).toMatchObject({ complaints: 0, reason: 'poweroff' });
  });
});

describe('run --pit', () => {
  it.each(['catch-up', 'reinject', 'discard'])('%s runs a guest that keeps time by the PIT', async (policy) => {
    const args = ['run', '--quiet', '--pit', policy, '--append', BY_PIT, '--', 'sh', '-c', 'echo $EPOCHREALTIME'];
    const { status, stdout, stderr } = await vivarium(args);
    expect(stdout.toString(), stderr).toMatch(/^\d{10}\.\d{6}\n$/);
    expect(status).toBe(0);
  });
});

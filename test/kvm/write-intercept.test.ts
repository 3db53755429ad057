/** The write intercept under a guest that writes at full speed: what is handed over is the memory of one instant. */
import { describe, expect, it } from 'vitest';
import { WriteIntercept } from '../../lib/memory/index.js';
import { until } from '../lib/machine.js';
import { checkPattern, guestMemory, GUEST_BYTES, pagedGuest, progress, TAIL_GPA } from '../lib/paged-guest.js';
import { GROUP, makeGroups, makePager, pagerLack } from '../lib/pager-rig.js';

const ROUNDS = 20;
const refused = expect.objectContaining({
  code: 'ERR_SNAPSHOT_REFUSED',
  cure: expect.stringContaining("'live'") as string,
});

describe.each([
  ['anonymous', false],
  ['anonymous', true],
  ['memfd', false],
] as const)('instants of a running guest, %s memory, huge pages: %s', (backing, hugePages) => {
  it('are whole, the guest runs on, and goes on from each in another memory', { timeout: 240_000 }, async () => {
    const memory = guestMemory(backing, hugePages);
    const guest = await pagedGuest(memory);
    const pager = makePagerOrNone();
    if (pager === undefined) return;
    const out = makeGroups(GUEST_BYTES);
    const intercept = new WriteIntercept(pager);
    guest.vcpu.resume();
    let lastSeen = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const from = progress(memory);
      const enough = Math.floor(Math.random() * 100_000);
      await until(() => progress(memory) - from >= enough);
      intercept.prepare({ bufferGroups: [0, 4, 256][round % 3]! });
      if (round % 2 === 1) await intercept.arm();
      await guest.vcpu.park();
      memory.write(TAIL_GPA, Uint8Array.of(round));
      intercept.begin(out.groups.sink());
      const state = guest.state();
      guest.vcpu.resume();
      memory.write(TAIL_GPA, Uint8Array.of(255)); // a device that writes to a protected page
      intercept.walk();
      const stats = await intercept.ended();
      expect(stats.saved).toBe(stats.groups);
      const seen = checkPattern(out.memory);
      expect(seen).toBeGreaterThan(lastSeen);
      expect(BigInt(seen) - state.regs.rax).toBeLessThanOrEqual(0n);
      expect(out.memory.read(TAIL_GPA, 1)[0]).toBe(round);
      lastSeen = seen;
    }
    expect(out.groups.offers().every((times) => times === ROUNDS)).toBe(true);
    await guest.vcpu.park();
    expect(checkPattern(memory)).toBeGreaterThan(lastSeen);
    expect(memory.read(TAIL_GPA, 1)[0]).toBe(255);

    function makePagerOrNone(): ReturnType<typeof makePager> | undefined {
      if (pagerLack('instant', backing) === undefined) return makePager(memory);
      try {
        const made = makePager(memory);
        expect(() => new WriteIntercept(made).prepare()).toThrow(refused as Error);
      } catch (error) {
        expect(error).toEqual(expect.objectContaining({ code: 'ERR_SNAPSHOT_HOST' }));
      }
      return undefined;
    }
  });

  it('given up in the middle leave the guest as it was', async () => {
    if (pagerLack('instant', backing) !== undefined) return;
    const memory = guestMemory(backing, hugePages);
    const guest = await pagedGuest(memory);
    const pager = makePager(memory);
    const out = makeGroups(GUEST_BYTES);
    const intercept = new WriteIntercept(pager);
    guest.vcpu.resume();
    await until(() => progress(memory) > 0);
    for (let round = 0; round < 5; round++) {
      out.groups.setRoom(round);
      intercept.prepare({ bufferGroups: 0 });
      await guest.vcpu.park();
      intercept.begin(out.groups.sink());
      guest.vcpu.resume();
      intercept.walk();
      // No room is left: the guest stands in a fault until it is let go.
      await until(() => intercept.stats.stalls > 0);
      intercept.release();
      const from = progress(memory);
      await until(() => progress(memory) > from);
    }
    await guest.vcpu.park();
    checkPattern(memory);
    expect(GUEST_BYTES % GROUP).toBe(0);
  });
});

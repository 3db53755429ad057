/** The write intercept without KVM: this thread writes while native threads hand over what was there at the instant. */
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { type AddressSpace, type Backing, WriteIntercept } from '../../lib/memory/index.js';
import { GROUP, makeGroups, makePager, makeServed, pagerLack } from '../lib/pager-rig.js';

const GROUPS = 128;
const SIZE = GROUPS * GROUP;
const spaceOf = (backing: Backing): AddressSpace => makeServed(makeGroups(SIZE).groups, SIZE, backing);
const code = (name: string): Error => expect.objectContaining({ code: name }) as Error;

describe.each(['anonymous', 'memfd', 'store'] as const)('a write intercept of %s memory', (backing) => {
  beforeEach((context) => {
    const lack = pagerLack('instant', backing);
    if (lack !== undefined) context.skip(lack);
  });

  it('hands over each group once, as it was at the instant', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(GROUPS - 1), { maxLength: 40 }),
        fc.array(fc.nat(GROUPS - 1), { maxLength: 40 }),
        fc.integer({ min: 1, max: 40 }),
        fc.boolean(),
        async (before, after, bufferGroups, armed) => {
          const memory = spaceOf(backing);
          for (let group = 0; group < GROUPS; group += 2) memory.fill(group * GROUP, group + 1, GROUP);
          const out = makeGroups(SIZE);
          const pager = makePager(memory);
          const intercept = new WriteIntercept(pager);
          intercept.prepare({ bufferGroups });
          if (armed) await intercept.arm();
          for (const group of before) memory.write(group * GROUP + 9, Uint8Array.of(201));
          const wanted = Buffer.from(memory.read(0, SIZE));
          intercept.begin(out.groups.sink());
          after.forEach((group, index) => {
            memory.write(group * GROUP + 9, Uint8Array.of(202));
            if (index === 3) intercept.walk();
          });
          intercept.walk();
          const stats = await intercept.ended();
          expect(stats).toMatchObject({ phase: 'done', groups: GROUPS, saved: GROUPS });
          expect(Buffer.compare(wanted, out.memory.read(0, SIZE))).toBe(0);
          expect(out.groups.offers().every((times) => times === 1)).toBe(true);
          for (const group of after) expect(memory.read(group * GROUP + 9, 1)[0]).toBe(202);
          pager.close();
          memory.close();
          out.memory.close();
        },
      ),
      { numRuns: 15 },
    );
  });

  it('lets writes go on in the copy buffer while the sink has no room', async () => {
    const memory = spaceOf(backing);
    memory.fill(0, 7, SIZE);
    const out = makeGroups(SIZE);
    out.groups.setRoom(0);
    const intercept = new WriteIntercept(makePager(memory));
    intercept.prepare({ bufferGroups: 10 });
    intercept.begin(out.groups.sink());
    intercept.walk();
    for (let group = 0; group < 10; group++) memory.fill(group * GROUP, 8, GROUP);
    expect(intercept.stats).toMatchObject({ saved: 10, savedByFault: 10, bufferHighWater: 10, stalls: 0 });
    out.groups.setRoom(1);
    // The eleventh waits for the room of one, without this thread's help.
    memory.fill(10 * GROUP, 8, GROUP);
    out.groups.setRoom(GROUPS);
    await intercept.ended();
    expect(out.memory.read(0, SIZE).every((byte) => byte === 7)).toBe(true);
    expect(memory.read(0, 11 * GROUP).every((byte) => byte === 8)).toBe(true);
  });

  it('ends at any time with nothing protected', async () => {
    const memory = spaceOf(backing);
    memory.fill(0, 7, SIZE);
    const out = makeGroups(SIZE);
    out.groups.setRoom(3);
    const intercept = new WriteIntercept(makePager(memory));
    for (const phase of ['prepared', 'armed', 'active'] as const) {
      intercept.prepare({ bufferGroups: 0 });
      if (phase !== 'prepared') await intercept.arm();
      if (phase === 'active') intercept.begin(out.groups.sink());
      const ended = phase === 'active' ? intercept.ended() : undefined;
      if (phase === 'active') intercept.walk();
      intercept.release();
      intercept.release();
      if (ended !== undefined) await expect(ended).rejects.toThrow(code('ERR_ABORTED'));
      memory.fill(0, 9, SIZE);
      expect(intercept.stats).toMatchObject({ phase: 'off' });
    }
  });

  it('of some groups leaves the others alone', async () => {
    const memory = spaceOf(backing);
    memory.fill(0, 7, SIZE);
    const out = makeGroups(SIZE);
    const intercept = new WriteIntercept(makePager(memory));
    intercept.prepare();
    await intercept.arm(Uint32Array.of(0, 50));
    await intercept.arm(Uint32Array.of(40, GROUPS - 40));
    intercept.begin(out.groups.sink(), Uint32Array.of(3, 2, 100, 28));
    memory.fill(0, 8, SIZE);
    intercept.walk();
    expect(await intercept.ended()).toMatchObject({ groups: 30, saved: 30 });
    const offers = out.groups.offers();
    for (let group = 0; group < GROUPS; group++) {
      const wanted = (group >= 3 && group < 5) || group >= 100;
      expect([offers[group], out.memory.read(group * GROUP, 1)[0]]).toEqual(wanted ? [1, 7] : [0, 0]);
    }
  });

  it('of a memory whose restore is unfinished takes the rest from the source', async () => {
    const from = makeGroups(SIZE, (group) => group + 1);
    const memory = makeServed(from.groups, SIZE, backing);
    const pager = makePager(memory);
    from.groups.failAt(5, 'hang', 0, 1);
    pager.serve(from.groups.source());
    memory.write(100 * GROUP, Uint8Array.of(250));
    const out = makeGroups(SIZE);
    const intercept = new WriteIntercept(pager);
    intercept.prepare();
    intercept.begin(out.groups.sink());
    memory.write(100 * GROUP, Uint8Array.of(251));
    memory.write(90 * GROUP, Uint8Array.of(252));
    intercept.walk();
    from.groups.letGo();
    await intercept.ended();
    await pager.complete();
    expect(out.groups.offers().every((times) => times === 1)).toBe(true);
    for (let group = 0; group < GROUPS; group++) {
      const wanted = new Uint8Array(GROUP).fill(group + 1);
      if (group === 100) wanted[0] = 250;
      expect(Buffer.compare(wanted, out.memory.read(group * GROUP, GROUP))).toBe(0);
    }
    expect([memory.read(100 * GROUP, 1)[0], memory.read(90 * GROUP, 1)[0]]).toEqual([251, 252]);
  });

  it('that meets a group that can not be had fails, and nobody waits', async () => {
    const from = makeGroups(SIZE, (group) => group + 1);
    const memory = makeServed(from.groups, SIZE, backing);
    const pager = makePager(memory);
    from.groups.failAt(70, 'checksum', 0, 100);
    from.groups.failAt(2, 'hang', 0, 1);
    pager.serve(from.groups.source());
    const out = makeGroups(SIZE);
    const intercept = new WriteIntercept(pager);
    intercept.prepare();
    intercept.begin(out.groups.sink());
    intercept.walk();
    const ended = intercept.ended();
    from.groups.letGo();
    await expect(ended).rejects.toThrow(code('ERR_PAGER'));
    expect(() => intercept.prepare()).toThrow(code('ERR_PAGER'));
    pager.close();
  });

  it('refuses what is out of turn', async () => {
    const memory = spaceOf(backing);
    const pager = makePager(memory);
    const intercept = new WriteIntercept(pager);
    const { groups } = makeGroups(SIZE);
    expect(() => intercept.begin(groups.sink())).toThrow(code('ERR_STATE'));
    await expect(intercept.arm()).rejects.toThrow(code('ERR_STATE'));
    intercept.prepare();
    await expect(intercept.arm(Uint32Array.of(GROUPS, 1))).rejects.toThrow(RangeError);
    await expect(intercept.arm(Uint32Array.of(1))).rejects.toThrow(RangeError);
    expect(() => intercept.begin(groups.source() as never)).toThrow(TypeError);
    expect(() => intercept.prepare({ bufferGroups: -1 })).toThrow(RangeError);
    intercept.begin(groups.sink());
    expect(() => intercept.begin(groups.sink())).toThrow(code('ERR_STATE'));
    expect(() => intercept.prepare()).toThrow(code('ERR_STATE'));
    pager.close();
    expect(() => intercept.begin(groups.sink())).toThrow(code('ERR_CLOSED'));
  });
});

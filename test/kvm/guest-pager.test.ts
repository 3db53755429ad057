/** Missing pages under a running vCPU: it starts at once and goes on exactly; and when a page can't be had it stops. */
import { describe, expect, it } from 'vitest';
import type { GuestPager } from '../../lib/memory/index.js';
import { until } from '../lib/machine.js';
import {
  checkPattern,
  guestMemory,
  GUEST_BYTES,
  pagedGuest,
  PATTERN_GPA,
  PATTERN_PAGES,
  progress,
  type GuestState,
} from '../lib/paged-guest.js';
import { GROUP, makeGroups, makePager, makeServed, pagerLack } from '../lib/pager-rig.js';

const ECANCELED = 125;

/** A guest that has run for a while, as groups and registers. */
async function saved(): Promise<{ groups: ReturnType<typeof makeGroups>; state: GuestState; last: number }> {
  const memory = guestMemory();
  const guest = await pagedGuest(memory);
  guest.vcpu.resume();
  await until(() => progress(memory) > 20_000);
  await guest.vcpu.park();
  const groups = makeGroups(GUEST_BYTES);
  groups.memory.write(0, memory.read(0, GUEST_BYTES));
  return { groups, state: guest.state(), last: checkPattern(memory) };
}

describe.each(['anonymous', 'memfd', 'store'] as const)('a guest whose %s memory comes lazily', (backing) => {
  it('goes on from where it was, while the rest comes', async () => {
    if (pagerLack('lazy', backing) !== undefined) return;
    const { groups, state, last } = await saved();
    const memory = makeServed(groups.groups, GUEST_BYTES, backing);
    const pager = makePager(memory);
    pager.serve(groups.groups.source());
    const guest = await pagedGuest(memory, state);
    pager.guard(guest.vm);
    guest.vcpu.resume();
    expect((await pager.complete()).missingGroups).toBe(0);
    await until(() => progress(memory) > last + PATTERN_PAGES);
    await guest.vcpu.park();
    expect(checkPattern(memory)).toBeGreaterThan(last);
  });

  it.each([
    ['short-read', 0],
    ['checksum', 0],
    ['decompress', 0],
    ['system', 5],
    ['system', 116],
    ['hang', 0],
  ] as const)('stops before it runs on invented data: %s, errno %i', async (kind, errno) => {
    if (pagerLack('lazy', backing) !== undefined) return;
    const { groups, state } = await saved();
    // Where the guest comes next but for one: it waits in the fault, or is about to.
    const page = (Number(state.regs.rax) + 40) % PATTERN_PAGES;
    const bad = Math.floor((PATTERN_GPA + page * 4096) / GROUP);
    groups.groups.failAt(bad, kind, errno, 100);
    const memory = makeServed(groups.groups, GUEST_BYTES, backing);
    const pager = makePager(memory);
    pager.serve(groups.groups.source(), { readTimeoutMs: 500 });
    const guest = await pagedGuest(memory, state);
    const second = guest.addVcpu(state);
    pager.guard(guest.vm);
    const failed = [guest.vcpu, second].map(
      (vcpu) =>
        new Promise<number>((resolve) => {
          vcpu.listener = { onExit: () => resolve(0), onFailure: resolve };
          vcpu.resume();
        }),
    );
    const why = kind === 'hang' ? 'timeout' : kind;
    expect(await failureOf(pager)).toEqual(
      expect.objectContaining({
        code: 'ERR_PAGER',
        cause: expect.objectContaining({ group: bad, why }) as object,
      }),
    );
    expect(await Promise.all(failed)).toEqual([ECANCELED, ECANCELED]);
    expect(guest.vcpu.state).toBe('failed');
    // It stands before the group or at its first page, and nothing brings it to go on.
    const stopped = guest.vcpu.getRegs().rax;
    expect(() => guest.vcpu.resume()).toThrow(expect.objectContaining({ code: 'ERR_STATE' }) as Error);
    expect(guest.vcpu.getRegs().rax).toBe(stopped);
    expect(pageOf(stopped)).toBeLessThanOrEqual(bad);
    groups.groups.letGo();

    function pageOf(value: bigint): number {
      return Math.floor((PATTERN_GPA + ((Number(value) - 1) % PATTERN_PAGES) * 4096) / GROUP);
    }
  });
});

describe('the kernel that reads a page for a guest', () => {
  it('brings nothing out of it when the page can not be had', async () => {
    if (pagerLack('lazy') !== undefined) return;
    const groups = makeGroups(GUEST_BYTES);
    // Ring 0, which KVM emulates: mov ax, 0x3000; mov ds, ax; mov al, [0]; out 0xf4, al; jmp $
    const code = [0xb8, 0x00, 0x30, 0x8e, 0xd8, 0xa0, 0x00, 0x00, 0xe6, 0xf4, 0xeb, 0xfe];
    const values: number[] = [];
    for (const broken of [false, true]) {
      groups.memory.write(0x30000, Uint8Array.of(77));
      if (broken) groups.groups.failAt(0x30000 / GROUP, 'checksum', 0, 100);
      const memory = guestMemory();
      const pager = makePager(memory);
      pager.serve(groups.groups.source());
      const guest = await pagedGuest(memory, { code: Uint8Array.from(code) });
      pager.guard(guest.vm);
      const ended = new Promise<number>((resolve) => {
        guest.vcpu.listener = {
          onExit: (exit) => {
            if (exit.kind === 'port') values.push(exit.data[0]!);
            resolve(0);
          },
          onFailure: resolve,
        };
      });
      guest.vcpu.resume();
      expect(await ended).toBe(broken ? ECANCELED : 0);
    }
    expect(values).toEqual([77]);
  });
});

async function failureOf(pager: GuestPager): Promise<unknown> {
  return pager.complete().catch((error: unknown) => error);
}

import { describe, expect, it } from 'vitest';
import { KvmError } from '../base/errors.js';
import type { GsiRoute } from '../kvm/index.js';
import { GsiRouter } from './gsi-router.js';

const WIRING: GsiRoute[] = Array.from({ length: 24 }, (_, gsi) => ({ gsi, chip: 2, pin: gsi }));
const message = (data: number, address = 0xfee0_0000n) => ({ address, data });

function rig() {
  const tables: GsiRoute[][] = [];
  const state = { refuse: false };
  const router = new GsiRouter(
    {
      setGsiRouting(routes) {
        if (state.refuse) throw new KvmError('KVM_SET_GSI_ROUTING', 'EINVAL', 22);
        tables.push([...routes]);
      },
    },
    WIRING,
  );
  return { router, tables, state };
}

describe('GsiRouter', () => {
  it('adds messages behind the wiring, and tells KVM only of changes', () => {
    const { router, tables } = rig();
    const [first, second] = [router.allocate()!, router.allocate()!];
    expect([first, second]).toEqual([24, 25]);
    expect(router.route(first, message(1))).toBe(true);
    expect(router.route(first, message(1))).toBe(true);
    expect(router.route(second, message(2))).toBe(true);
    expect(tables).toHaveLength(2);
    expect(tables[1]?.slice(0, 24)).toEqual(WIRING);
    expect(tables[1]?.slice(24)).toEqual([
      { gsi: 24, msi: message(1) },
      { gsi: 25, msi: message(2) },
    ]);
    router.route(first, undefined);
    expect(tables[2]?.slice(24)).toEqual([{ gsi: 25, msi: message(2) }]);
  });

  it.each([0n, 0xfec0_0000n, 0x1_fee0_0000n, 0xffff_ffff_fee0_0000n])(
    'leads nowhere by a message to 0x%s',
    (address) => {
      const { router, tables } = rig();
      const gsi = router.allocate()!;
      expect(router.route(gsi, message(1, address))).toBe(false);
      expect(tables).toEqual([]);
      router.route(gsi, message(1));
      expect(router.route(gsi, message(1, address))).toBe(false);
      expect(tables.at(-1)).toEqual(WIRING);
    },
  );

  it('keeps the table as it was when KVM refuses one', () => {
    const { router, tables, state } = rig();
    const [first, second] = [router.allocate()!, router.allocate()!];
    router.route(first, message(1));
    state.refuse = true;
    expect(() => router.route(first, message(9))).toThrow(KvmError);
    expect(() => router.route(second, message(9))).toThrow(KvmError);
    state.refuse = false;
    router.route(second, message(2));
    expect(tables.at(-1)?.slice(24)).toEqual([
      { gsi: 24, msi: message(1) },
      { gsi: 25, msi: message(2) },
    ]);
  });

  it('runs out of GSIs, not over', () => {
    const { router } = rig();
    let last: number | undefined;
    for (let gsi = router.allocate(); gsi !== undefined; gsi = router.allocate()) last = gsi;
    expect(last).toBe(4095);
  });
});

/**
 * A board's state, saved and restored in a new machine: flat guests go on exactly where they were. The memory is copied as bytes;
 * what brings it into a folder and back is tested elsewhere.
 */
import { describe, expect, it } from 'vitest';
import type { SavedPart } from '../../lib/base/saved-state.js';
import { BoardRig } from '../lib/board-rig.js';
import { until, untilCalmly } from '../lib/machine.js';

const COUNTER = 0x20000;
const TICKS = 0x600;
const ACKED = 0x604;

type Parts = Record<string, SavedPart> & { cpus: SavedPart[] };
const partsOf = (part: SavedPart): Parts => part.data as Parts;

/** A state without what goes on while nothing runs: the clocks, and the time since a device's beginning. */
function still(part: SavedPart): unknown {
  const { cpus, vm, time } = partsOf(part);
  return { cpus, vm, time };
}

/** A guest that is parked in its handler may have ended the interrupt and not counted that yet. */
function expectCounted(rig: BoardRig, delivered: number): void {
  expect(delivered).toBeGreaterThanOrEqual(rig.u32(ACKED));
  expect(delivered).toBeLessThanOrEqual(rig.u32(TICKS));
}

describe('a board’s state', () => {
  it('is the same after it was restored, before anything runs', async () => {
    const source = await BoardRig.make({ guest: 'smp-count', cpus: 2 });
    source.run();
    await until(() => source.u32(0x20010) > 100 && source.u64(0x20020) > 1000n);
    await source.pause();
    const saved = source.save();
    const target = await source.clone(saved);
    expect(still(target.save())).toEqual(still(saved));
    for (const [index, vcpu] of target.board.vcpus.entries()) {
      const from = source.board.vcpus[index]!;
      expect(vcpu.getRegs()).toEqual(from.getRegs());
      expect(vcpu.getSregs()).toEqual(from.getSregs());
      expect(vcpu.getXsave()).toEqual(from.getXsave());
      expect(vcpu.getCpuid()).toEqual(from.getCpuid());
    }
    expect(source.board.vcpus[0]!.getRegs().r12).toBe(0x1122334455667788n);
  });

  it('goes on with a ring-3 counter, from its very value, and the source does too', async () => {
    const source = await BoardRig.make({ guest: 'count', defines: { COUNTER } });
    source.run();
    await until(() => source.u64(COUNTER) > 1_000_000n);
    await source.pause();
    const at = source.u64(COUNTER);
    const target = await source.clone(source.save());
    expect(target.u64(COUNTER)).toBe(at);
    for (const rig of [target, source]) {
      rig.run();
      await until(() => rig.u64(COUNTER) > at + 1_000_000n);
    }
    expect([...target.ends, ...source.ends]).toEqual([]);
  });

  it('goes on with two vCPUs, the second in real mode', async () => {
    const source = await BoardRig.make({ guest: 'smp-count', cpus: 2 });
    source.run();
    await until(() => source.u32(0x20010) > 100 && source.u64(0x20020) > 1000n);
    await source.pause();
    const at = [source.u32(0x20010), Number(source.u64(0x20020))] as const;
    const target = await source.clone(source.save());
    target.run();
    await until(() => target.u32(0x20010) > at[0] + 1000 && Number(target.u64(0x20020)) > at[1] + 100_000);
    const offsets = target.board.vcpus.map((vcpu) => vcpu.state);
    expect(offsets).toEqual(['running', 'running']);
  });

  it('keeps a vCPU that waits to be started', async () => {
    const source = await BoardRig.make({ guest: 'count', cpus: 2, defines: { COUNTER } });
    source.run();
    await until(() => source.u64(COUNTER) > 1000n);
    await source.pause();
    const target = await source.clone(source.save());
    expect(target.board.vcpus.map((vcpu) => vcpu.getMpState())).toEqual(
      source.board.vcpus.map((vcpu) => vcpu.getMpState()),
    );
    expect(target.board.vcpus[1]!.getMpState()).toBe(1);
  });

  it('goes on with a UART’s output, no letter twice and none missing', async () => {
    let rig = await BoardRig.make({ guest: 'uart-letters', mode: 'real16' });
    let text = '';
    for (let move = 0; move < 5; move++) {
      rig.run();
      await until(() => rig.output.join('').length > 300);
      await rig.pause();
      const saved = rig.save();
      text += rig.output.join('');
      const next = await rig.clone(saved);
      await rig.close();
      rig = next;
    }
    const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';
    expect(text).toBe(letters.repeat(Math.ceil(text.length / 26)).slice(0, text.length));
  });

  it('keeps what was typed and not yet read', async () => {
    const source = await BoardRig.make({ guest: 'uart-echo', mode: 'real16' });
    source.run();
    await until(() => source.output.join('') === 'ready\n');
    await source.pause();
    source.board.chipset.consoleInput(Buffer.from('hello'));
    const target = await source.clone(source.save());
    target.run();
    await until(() => target.output.join('') === 'hello');
    target.board.chipset.consoleInput(Uint8Array.of(4));
    await until(() => target.ends.length > 0);
    expect(target.ends).toEqual(['exit 9']);
  });
});

describe.each([
  ['the PIC', 255],
  ['the IO-APIC', 2],
])('a guest that counts ticks through %s', (_name, pin) => {
  it('loses none: what it took is what the ledger has, over five moves', async () => {
    const count = 4773;
    let rig = await BoardRig.make({
      guest: 'pit-halts',
      defines: { COUNT: count, PIN: pin },
    });
    rig.run();
    await untilCalmly(() => rig.u32(ACKED) > 20);
    for (let move = 0; move < 5; move++) {
      await rig.pause();
      const before = rig.time.status();
      expectCounted(rig, before.delivered);
      const next = await rig.clone(rig.save());
      await rig.close();
      rig = next;
      const after = rig.time.status();
      expect(after).toMatchObject({ delivered: before.delivered, forgiven: before.forgiven });
      const at = rig.u32(ACKED);
      rig.run();
      await untilCalmly(() => rig.u32(ACKED) > at + 25);
    }
    await rig.pause();
    const { expected, delivered, forgiven, owed } = rig.time.status();
    expectCounted(rig, delivered);
    expect(expected).toBe(delivered + forgiven + owed);
    expect(rig.board.pit.read()).toMatchObject({ mode: 2 });
  });
});

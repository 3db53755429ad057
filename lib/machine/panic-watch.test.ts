import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { PanicWatch } from './panic-watch.js';

const bytes = (text: string) => new TextEncoder().encode(text);

function watch() {
  const clock = new ManualClock();
  let settled = 0;
  const panic = new PanicWatch({ clock, onSettled: () => settled++ });
  return { clock, panic, settled: () => settled };
}

describe('PanicWatch', () => {
  it('sees the kernel line, also in pieces and with a caller id', () => {
    const { panic } = watch();
    panic.look(bytes('[    1.000000] Run /init\r\n[    1.2345'));
    panic.look(bytes('67] Kernel panic - not syncing: Attempted to kill init!\r\n'));
    expect(panic.message).toBe('Kernel panic - not syncing: Attempted to kill init!');
    const second = watch().panic;
    second.look(bytes('[    2.000001][    T1] Kernel panic - not syncing: x\n'));
    expect(second.message).toBe('Kernel panic - not syncing: x');
  });

  it('does not take what users print for a panic', () => {
    const { panic } = watch();
    panic.look(bytes('# echo Kernel panic - not syncing\nKernel panic - not syncing\n'));
    expect(panic.message).toBeUndefined();
  });

  it('settles after the grace, once, and forgets at a reset', () => {
    const { clock, panic, settled } = watch();
    panic.panicked('pvpanic');
    panic.panicked('again');
    clock.advance(2_999_000_000n);
    expect(settled()).toBe(0);
    clock.advance(2_000_000n);
    expect(settled()).toBe(1);
    panic.reset();
    expect(panic.message).toBeUndefined();
    panic.panicked('pvpanic');
    panic.reset();
    clock.advance(10_000_000_000n);
    expect(settled()).toBe(1);
  });

  it('reads the line to its end, wherever pieces end', () => {
    const text =
      '[    1.234567] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n---[ end';
    for (let cut = 1; cut < text.length; cut++) {
      const { panic } = watch();
      panic.look(bytes(text.slice(0, cut)));
      panic.look(bytes(text.slice(cut)));
      expect(panic.message, `cut at ${cut}`).toBe(
        'Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)',
      );
    }
    const { panic } = watch();
    for (const byte of bytes(text)) panic.look(Uint8Array.of(byte));
    expect(panic.message).toMatch(/unknown-block\(0,0\)$/);
  });

  it('gives a crash kernel its time, whether the device tells of it or its first line does', () => {
    const told = watch();
    told.panic.look(bytes('[    9.000000] Kernel panic - not syncing: sysrq triggered crash\n'));
    told.panic.crashKernelStarts();
    const seen = watch();
    seen.panic.look(bytes('[    9.000000] Kernel panic - not syncing: sysrq triggered crash\n'));
    seen.panic.look(bytes('[    0.000000] Linux ver'));
    seen.panic.look(bytes('sion 6.1.0\n'));
    for (const { clock, panic, settled } of [told, seen]) {
      clock.advance(3_600_000_000_000n);
      expect(settled()).toBe(0);
      expect(panic.message).toBe('Kernel panic - not syncing: sysrq triggered crash');
    }
    const without = watch();
    without.panic.look(bytes('[    9.000000] Kernel panic - not syncing: x\n[    9.100000] Linux is lost\n'));
    without.clock.advance(3_000_000_000n);
    expect(without.settled()).toBe(1);
  });
});

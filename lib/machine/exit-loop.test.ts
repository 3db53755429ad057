/** What becomes of exits before, at and after the end of a power cycle, on vCPUs that are only a record. */
import { describe, expect, it } from 'vitest';
import { exitChannel } from '../base/probes.js';
import { probed, toldNobody } from '../base/testing-probes.js';
import type { AccessResult, DeviceFault } from '../bus/index.js';
import type { VcpuExit, VcpuListener } from '../kvm/index.js';
import { ExitLoop } from './exit-loop.js';

const READ: VcpuExit = { kind: 'port', port: 0x500, size: 4, count: 1, isWrite: false, data: new Uint8Array(4) };

const fault = (device: string): DeviceFault => ({
  kind: 'fault',
  device,
  address: 0x500,
  isWrite: false,
  cause: new Error('broken'),
});

function rig(answer: () => AccessResult) {
  const seen: string[] = [];
  const vcpus = [0, 1].map((id) => ({
    listener: undefined as VcpuListener | undefined,
    complete: () => void seen.push(`complete ${id}`),
    abandonExit: () => void seen.push(`abandon ${id}`),
  }));
  const bus = { access: answer, write: () => undefined };
  const loop = new ExitLoop({
    machine: 'box',
    vm: { onPosted: () => undefined },
    vcpus,
    ports: bus,
    mmio: bus,
    listener: {
      onFatalExit: (_, exit) => void seen.push(exit.kind),
      onFault: (fault) => void seen.push(`fault ${fault.device}`),
      onRunFailure: (_, errno) => void seen.push(`errno ${errno}`),
    },
  });
  return { seen, loop, vcpus };
}

describe('ExitLoop', () => {
  it('lets a vCPU go on when its access is answered, now or later', async () => {
    let later!: (fault: undefined) => void;
    const answers: AccessResult[] = [undefined, new Promise((resolve) => (later = resolve))];
    const { seen, vcpus } = rig(() => answers.shift());
    vcpus[0]!.listener!.onExit(READ);
    vcpus[1]!.listener!.onExit(READ);
    expect(seen).toEqual(['complete 0']);
    later(undefined);
    await Promise.resolve();
    expect(seen).toEqual(['complete 0', 'complete 1']);
  });

  it('abandons every vCPU at the end, and each that comes out of the guest after it', () => {
    const { seen, loop, vcpus } = rig(() => undefined);
    loop.end();
    expect(seen.splice(0)).toEqual(['abandon 0', 'abandon 1']);
    vcpus[0]!.listener!.onExit(READ);
    vcpus[1]!.listener!.onExit({ kind: 'shutdown' });
    vcpus[1]!.listener!.onFailure(14);
    expect(seen).toEqual(['abandon 0', 'abandon 1']);
  });

  it('takes the end in the middle of an access', () => {
    const { seen, loop, vcpus } = rig(() => {
      loop.end();
      return undefined;
    });
    vcpus[0]!.listener!.onExit(READ);
    expect(seen).toEqual(['abandon 0', 'abandon 1']);
  });

  it('lets answers and faults that come after the end go nowhere', async () => {
    let later!: (fault: DeviceFault | undefined) => void;
    const { seen, loop, vcpus } = rig(() => new Promise((resolve) => (later = resolve)));
    vcpus[0]!.listener!.onExit(READ);
    const first = later;
    vcpus[1]!.listener!.onExit(READ);
    loop.end();
    seen.length = 0;
    first(undefined);
    later(fault('slow'));
    await new Promise((resolve) => setImmediate(resolve));
    expect(seen).toEqual([]);
  });

  it('tells faults, failures and what no guest survives', () => {
    const { seen, vcpus } = rig(() => fault('disk'));
    vcpus[0]!.listener!.onExit(READ);
    vcpus[0]!.listener!.onFailure(14);
    vcpus[1]!.listener!.onExit({ kind: 'shutdown' });
    expect(seen).toEqual(['fault disk', 'errno 14', 'shutdown']);
  });

  it('tells a probe of each exit that it serves, and makes nothing for nobody', async () => {
    const { loop, vcpus } = rig(() => undefined);
    const exits = (): void => {
      vcpus[0]!.listener!.onExit(READ);
      vcpus[1]!.listener!.onExit({ kind: 'mmio', gpa: 0xfee0_0000, isWrite: true, data: new Uint8Array(4) });
      vcpus[1]!.listener!.onExit({ kind: 'shutdown' });
    };
    expect(await toldNobody(exitChannel, exits)).toBe(0);
    const plain = { machine: 'box', address: undefined, isWrite: undefined };
    expect(await probed(exitChannel, exits)).toEqual([
      { ...plain, cpu: 0, kind: 'port', address: 0x500, isWrite: false },
      { ...plain, cpu: 1, kind: 'mmio', address: 0xfee0_0000, isWrite: true },
      { ...plain, cpu: 1, kind: 'shutdown' },
    ]);
    loop.end();
    expect(await probed(exitChannel, exits)).toEqual([]);
  });
});

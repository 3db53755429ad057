import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PciHeader } from '../abi/pci.js';
import { CommonCfg, VirtioPciCapType as Cap } from '../abi/virtio-pci.js';
import type { SavedPart } from '../base/saved-state.js';
import { FakeGuestMemory } from '../memory/fake.js';
import type { BlockService } from '../vsp/block/contract.js';
import { BlockDevice } from './block.js';
import { FakeBlockService } from './fake-block-service.js';
import { MockDriver } from './mock-driver.js';
import type { VirtioDevice } from './virtio-device.js';
import { RIG_MEMORY_BYTES, VirtioPciRig } from './virtio-pci-rig.js';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** What a snapshot file does to it, as far as that matters: nothing is shared with the saved one. */
const copied = (part: SavedPart): SavedPart => structuredClone(part);

function started(options: { msix?: boolean } = {}): VirtioPciRig {
  const rig = new VirtioPciRig();
  rig.initialise(options);
  return rig;
}

/** A new function on the same memory, from the state of the old one, which is not touched again. */
function restored<D extends VirtioDevice>(old: VirtioPciRig<D>, device?: D): VirtioPciRig<D> {
  const rig = new VirtioPciRig<D>(old.memory, device);
  rig.bridge.restoreState(copied(old.bridge.saveState()));
  rig.probe();
  return rig;
}

/** All that software can read, without changing it: configuration space, registers of both BARs. */
function registers(rig: VirtioPciRig): unknown {
  const config = Array.from({ length: 64 }, (_, index) => rig.configRead(4 * index, 4));
  const [first, second] = [0, 4].map((at) => rig.configRead(PciHeader.BASE_ADDRESS_0 + at, 4));
  const words = (gpa: number, count: number) => Array.from({ length: count }, (_, at) => rig.read(gpa + 4 * at, 4));
  return { config, common: words(first!, 14), device: words(first! + 0x2000, 5), msix: words(second!, 12) };
}

describe('the state of a virtio function', () => {
  it('is all that software can see of it', () => {
    const old = started({ msix: true });
    old.configWrite(0x10, 4, 0xd000_0000);
    old.configWrite(PciHeader.INTERRUPT_LINE, 1, 77);
    old.probe();
    old.write(old.common(CommonCfg.QUEUE_SELECT), 2, 1);
    old.write(old.common(CommonCfg.DEVICE_FEATURE_SELECT), 4, 1);
    old.write(old.place(Cap.DEVICE) + 3, 1, 0xaa);
    const rig = restored(old);
    expect(registers(rig)).toEqual(registers(old));
    expect([...rig.doorbells.keys()]).toEqual([...old.doorbells.keys()]);
    expect(rig.device.log).toEqual(['restore', 'activate']);
    expect(rig.device.activation?.features).toBe(old.device.activation?.features);
    // And what a reset goes back to.
    for (const each of [old, rig]) each.bridge.reset();
    expect(registers(rig)).toEqual(registers(old));
  });

  it('takes no chain and sends nothing before it is released, then looks at every queue', () => {
    const old = started({ msix: true });
    old.device.activation!.interrupt(1);
    old.device.activation!.configChanged();
    const rig = restored(old);
    rig.doorbells.get(rig.place(Cap.NOTIFY))!();
    expect(rig.device.activation?.queues.map((queue) => queue?.held)).toEqual([true, true]);
    expect([rig.device.log, rig.interrupts]).toEqual([['restore', 'activate'], []]);
    rig.pci.release();
    expect(rig.device.activation?.queues.map((queue) => queue?.held)).toEqual([false, false]);
    expect(rig.device.log.slice(2)).toEqual(['notify 0', 'notify 1']);
    // An interrupt may have been on its way: a spurious one harms nobody, a lost one does.
    expect(rig.interrupts).toEqual(['msix 2', 'msix 0']);
    rig.pci.release();
    expect(rig.device.log).toHaveLength(4);
  });

  it('goes on as before when only held', () => {
    const rig = started({ msix: true });
    rig.pci.hold();
    rig.doorbells.get(rig.place(Cap.NOTIFY) + 4)!();
    rig.bridge.saveState();
    rig.pci.release();
    expect(rig.device.log).toEqual(['activate', 'save', 'notify 0', 'notify 1']);
    expect(rig.interrupts).toEqual([]);
  });

  it('keeps what is pending behind a mask, and a line that is high', () => {
    const masked = started({ msix: true });
    masked.write(masked.msixTable + 16 + 12, 4, 1);
    masked.device.activation!.interrupt(0);
    const rig = restored(masked);
    expect(rig.read(rig.msixTable + 0x800, 4)).toBe(2n);
    rig.write(rig.msixTable + 16 + 12, 4, 0);
    expect(rig.interrupts).toEqual([]);
    rig.pci.release();
    expect(rig.interrupts[0]).toBe('msix 1');

    const lined = started();
    lined.device.activation!.interrupt(0);
    expect(lined.interrupts).toEqual(['intx high']);
    const next = restored(lined);
    expect(next.interrupts).toEqual(['intx high']);
    expect(next.configRead(PciHeader.COMMAND + 2, 2) & 8).toBe(8);
    expect(next.read(next.place(Cap.ISR), 1)).toBe(1n);
    expect(next.interrupts).toEqual(['intx high', 'intx low']);
  });

  it('is not activated before its driver was ready, and hears then of what came early', () => {
    const old = new VirtioPciRig();
    old.probe();
    old.configWrite(PciHeader.COMMAND, 2, 6);
    for (const status of [1, 3]) old.status = status;
    old.acceptFeatures(old.offeredFeatures());
    old.status = 0xb;
    for (const index of [0, 1]) old.setUpQueue(index, 0x1_0000 * (index + 1));
    old.write(old.place(Cap.NOTIFY) + 4, 2, 1);
    const rig = restored(old);
    expect([rig.status, rig.device.log]).toEqual([0xb, ['restore']]);
    rig.pci.release();
    rig.status = 0xf;
    expect(rig.device.log).toEqual(['restore', 'activate', 'notify 1']);
  });

  it('has been reset when a reset was under way', async () => {
    const old = started({ msix: true });
    old.device.holdReset = true;
    old.status = 0;
    expect(old.status).toBe(0xf);
    const rig = restored(old);
    expect(rig.status).toBe(0);
    rig.pci.release();
    rig.initialise();
    expect(rig.device.activation).toBeDefined();
    old.device.finishReset!();
    await turn();
  });

  it('stays broken until its driver resets it', async () => {
    const old = started();
    old.device.activation!.needsReset('a rule was broken');
    const rig = restored(old);
    rig.pci.release();
    rig.write(rig.place(Cap.NOTIFY), 2, 0);
    expect(rig.status).toBe(0x4f);
    expect(rig.device.activation).toBeUndefined();
    rig.status = 0;
    await turn();
    rig.initialise();
    expect(rig.device.activation).toBeDefined();
  });

  it('refuses a device without a state, by its name', () => {
    const rig = started();
    Object.assign(rig.device, { saveState: undefined });
    expect(() => rig.bridge.saveState()).toThrow(expect.objectContaining({ code: 'ERR_SNAPSHOT_REFUSED' }) as Error);
    expect(() => rig.bridge.saveState()).toThrow(/fake0 can't be saved/);
  });

  it('believes nothing of a snapshot that no driver could have made', () => {
    interface Data {
      functions: {
        name: string;
        config: { data: { bytes: Uint8Array } };
        function?: { data: Record<string, unknown> };
      }[];
    }
    interface Life {
      offered: bigint;
      accepted: bigint;
      queues: { size: number; ring?: { availableIndex: number; inFlight: number[] } }[];
    }
    const refusal = (change: (data: Data, life: Life) => void): string => {
      const part = copied(started({ msix: true }).bridge.saveState());
      const data = part.data as Data;
      change(data, (data.functions[1]!.function!.data['life'] as { data: Life }).data);
      try {
        new VirtioPciRig().bridge.restoreState(part);
        return 'taken';
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_SNAPSHOT' });
        return (error as Error).message;
      }
    };
    expect(refusal(() => undefined)).toBe('taken');
    expect(refusal((data) => (data.functions[1]!.name = 'other'))).toMatch(/fake0.*other/);
    expect(refusal((data) => void data.functions.pop())).toMatch(/PCI bus/);
    expect(refusal((data) => (data.functions[1]!.config.data.bytes[2]! ^= 1))).toMatch(/differs at 0x2/);
    expect(refusal((_data, life) => (life.offered = 1n))).toMatch(/was offered 0x1,/);
    expect(refusal((_data, life) => (life.accepted |= 1n << 60n))).toMatch(/not offered/);
    expect(refusal((_data, life) => (life.queues[0]!.size = 3))).toMatch(/queue 0 has a size of 3/);
    expect(refusal((_data, life) => life.queues.push({ ...life.queues[0]! }))).toMatch(/it has 2 queues/);
    const ring = (change: (ring: { availableIndex: number; inFlight: number[] }) => void) =>
      refusal((_data, life) => change(life.queues[0]!.ring!));
    expect(ring((queue) => (queue.availableIndex = 1))).toMatch(/0 chains in flight between/);
    expect(ring((queue) => Object.assign(queue, { availableIndex: 2, inFlight: [1, 1] }))).toMatch(/twice/);
    expect(ring((queue) => Object.assign(queue, { availableIndex: 1, inFlight: [8] }))).toMatch(/can't have/);
  });
});

// ---- a disk's driver that goes on ----

const QUEUE_GPA = 0x1_0000;
const SLOT_GPA = 0x2_0000;
const SLOT_BYTES = 0x1000;
const SLOTS = 12;
const SECTOR = 512;

/** Linux's steps for a disk, as far as the device can tell. */
class DiskDriver {
  readonly memory = new FakeGuestMemory(RIG_MEMORY_BYTES);
  readonly queue: MockDriver;
  readonly answered = new Map<number, number>();
  readonly #slots = new Map<number, number>();
  readonly #free = Array.from({ length: SLOTS }, (_, index) => index);
  readonly #eventIndex: boolean;

  constructor(eventIndex: boolean) {
    this.#eventIndex = eventIndex;
    this.queue = new MockDriver(this.memory, { size: 64, gpa: QUEUE_GPA, eventIndex });
  }

  start(rig: VirtioPciRig<BlockDevice>): void {
    rig.probe();
    rig.configWrite(PciHeader.COMMAND, 2, 6);
    for (const status of [0, 1, 3]) rig.status = status;
    const offered = rig.offeredFeatures();
    rig.acceptFeatures(this.#eventIndex ? offered : offered & ~(1n << 29n));
    rig.status = 0xb;
    rig.write(rig.common(CommonCfg.QUEUE_SELECT), 2, 0);
    rig.write(rig.common(CommonCfg.QUEUE_SIZE), 2, 64);
    const { descriptors, available, used } = this.queue.queueOptions;
    const places = [CommonCfg.QUEUE_DESC, CommonCfg.QUEUE_DRIVER, CommonCfg.QUEUE_DEVICE];
    for (const [part, gpa] of [descriptors, available, used].entries()) rig.write(rig.common(places[part]!), 8, gpa);
    rig.write(rig.common(CommonCfg.QUEUE_ENABLE), 2, 1);
    rig.status = 0xf;
  }

  /** Writes sector `id`, filled with `id`. False when there is no room now. */
  submit(rig: VirtioPciRig<BlockDevice>, id: number): boolean {
    const slot = this.#free.pop();
    if (slot === undefined) return false;
    const gpa = SLOT_GPA + slot * SLOT_BYTES;
    const header = new DataView(new ArrayBuffer(16));
    header.setUint32(0, 1, true);
    header.setBigUint64(8, BigInt(id), true);
    this.memory.write(gpa, new Uint8Array(header.buffer));
    this.memory.fill(gpa + 0x200, id, SECTOR);
    this.memory.fill(gpa + 0x800, 0xff, 1);
    const head = this.queue.add([
      { gpa, length: 16 },
      { gpa: gpa + 0x200, length: SECTOR },
      { gpa: gpa + 0x800, length: 1, writable: true },
    ])!;
    this.#slots.set(head, slot);
    if (this.queue.publish()) rig.write(rig.place(Cap.NOTIFY), 2, 0);
    return true;
  }

  collect(): void {
    for (const { head } of this.queue.collect()) {
      const slot = this.#slots.get(head);
      expect(slot, `head ${head} was given back and is not the device's`).toBeDefined();
      this.#slots.delete(head);
      const gpa = SLOT_GPA + slot! * SLOT_BYTES;
      expect(this.memory.read(gpa + 0x800, 1)[0]).toBe(0);
      const id = this.memory.read(gpa + 0x200, 1)[0]!;
      this.answered.set(id, (this.answered.get(id) ?? 0) + 1);
      this.#free.push(slot!);
    }
  }
}

/** The guest's disk, of which a new machine opens the same data. */
function sameDisk(old: FakeBlockService): FakeBlockService {
  const next = new FakeBlockService(old.disk.length, { hold: true });
  next.disk.set(old.disk);
  return next;
}

describe('a disk in a snapshot', () => {
  it('answers every request exactly once, however often and whenever it is saved', async () => {
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.constant('submit' as const) },
      { weight: 3, arbitrary: fc.nat({ max: 20 }) },
      { weight: 1, arbitrary: fc.constant('collect' as const) },
      { weight: 1, arbitrary: fc.constant('turn' as const) },
      { weight: 1, arbitrary: fc.constant('save' as const) },
      { weight: 1, arbitrary: fc.constant('save early' as const) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.boolean(), async (steps, eventIndex) => {
        const driver = new DiskDriver(eventIndex);
        let service = new FakeBlockService(256 * SECTOR, { hold: true });
        let rig = new VirtioPciRig(driver.memory, new BlockDevice(service));
        driver.start(rig);
        await turn();
        let id = 0;
        const finishOne = (which: number): void => {
          const [request] = service.held.splice(which % Math.max(service.held.length, 1), 1);
          request?.finish();
        };
        for (const what of steps) {
          if (typeof what === 'number') finishOne(what);
          else if (what === 'submit') id += driver.submit(rig, id + 1) ? 1 : 0;
          else if (what === 'collect') driver.collect();
          else if (what === 'turn') await turn();
          else {
            // What the service has and does not complete is what a provider's gate holds.
            rig.pci.hold();
            if (what === 'save') await turn();
            service = sameDisk(service);
            rig = restored(rig, new BlockDevice(service as BlockService));
            // The driver goes on before the device does.
            id += driver.submit(rig, id + 1) ? 1 : 0;
            rig.pci.release();
          }
        }
        for (let left = 4 * SLOTS; left > 0; left--) {
          await turn();
          while (service.held.length > 0) finishOne(0);
        }
        await turn();
        driver.collect();
        expect([...driver.answered.keys()].sort((a, b) => a - b)).toEqual(
          Array.from({ length: id }, (_, at) => at + 1),
        );
        expect([...driver.answered.values()].every((times) => times === 1)).toBe(true);
        for (let at = 1; at <= id; at++) expect(service.disk[at * SECTOR]).toBe(at);
        expect(rig.failures).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});

import { describe, expect, it } from 'vitest';
import { CommonCfg, VirtioPciCapType as Cap } from '../abi/virtio-pci.js';
import { VirtioPciRig } from './virtio-pci-rig.js';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function started(options: { msix?: boolean } = {}): VirtioPciRig {
  const rig = new VirtioPciRig();
  rig.initialise(options);
  return rig;
}

/** What was counted as misbehaviour. */
const wrongs = (rig: VirtioPciRig): string[] =>
  Object.keys((rig.pci.inspect() as { misbehaviour: Record<string, number> }).misbehaviour);

describe('a virtio function', () => {
  it('says who it is and where its structures are', () => {
    const rig = new VirtioPciRig();
    expect(rig.configRead(0, 4)).toBe(0x1044_1af4);
    expect(rig.configRead(8, 4)).toBe(0x00ff_0001);
    const structures = rig.probe();
    expect([...structures.keys()].sort()).toEqual([Cap.COMMON, Cap.NOTIFY, Cap.ISR, Cap.DEVICE, Cap.PCI]);
    expect(structures.get(Cap.COMMON)?.length).toBe(0x38);
    expect(structures.get(Cap.DEVICE)?.length).toBe(20);
    expect(structures.get(Cap.NOTIFY)?.length).toBe(8);
    expect(rig.configRead(structures.get(Cap.NOTIFY)!.at + 16, 4)).toBe(4);
  });

  it('is brought up as Linux does it, and told what was agreed on', () => {
    const rig = started();
    expect(rig.offeredFeatures()).toBe(0x1_3000_0021n);
    expect(rig.status).toBe(0xf);
    expect(rig.device.log).toEqual(['activate']);
    expect(rig.device.activation?.features).toBe(0x1_3000_0021n);
    expect(rig.device.activation?.queues.map((queue) => queue?.size)).toEqual([8, 16]);
    expect(wrongs(rig)).toEqual([]);
  });

  it('hears of notifications by doorbells and by plain writes', () => {
    const rig = started();
    const notify = rig.place(Cap.NOTIFY);
    expect([...rig.doorbells.keys()]).toEqual([notify, notify + 4]);
    rig.doorbells.get(notify + 4)!();
    rig.write(notify, 2, 0);
    rig.write(notify + 4, 4, 1);
    expect(rig.device.log).toEqual(['activate', 'notify 1', 'notify 0', 'notify 1']);
  });

  it('takes its doorbells along when its BAR moves or is switched off', () => {
    const rig = started();
    const before = rig.place(Cap.NOTIFY);
    rig.configWrite(0x10, 4, 0xd000_0000);
    expect([...rig.doorbells.keys()]).toEqual([0xd000_3000, 0xd000_3004]);
    expect(rig.read(before, 4)).toBe(0xffff_ffffn);
    rig.configWrite(4, 2, 0);
    expect(rig.doorbells.size).toBe(0);
    rig.configWrite(4, 2, 6);
    rig.doorbells.get(0xd000_3000)!();
    expect(rig.device.log.at(-1)).toBe('notify 0');
  });

  it('shows the device configuration in every width, with a generation that follows changes', () => {
    const rig = started();
    const config = rig.place(Cap.DEVICE);
    expect(rig.read(config, 1)).toBe(1n);
    expect(rig.read(config + 2, 2)).toBe(0x0403n);
    expect(rig.read(config + 8, 8)).toBe(0x100f_0e0d_0c0b_0a09n);
    expect(rig.read(config + 20, 4)).toBe(0n);
    const generation = (): number => Number(rig.read(rig.common(CommonCfg.CONFIG_GENERATION), 1));
    const first = generation();
    expect(generation()).toBe(first);
    rig.device.bytes[3] = 99;
    expect(generation()).not.toBe(first);
    rig.write(config + 4, 4, 0xaabbccdd);
    expect([...rig.device.bytes.subarray(4, 8)]).toEqual([0xdd, 0xcc, 0xbb, 0xaa]);
    rig.write(config + 20, 1, 1);
    expect(wrongs(rig)).toEqual(['a write to no register']);
  });

  it('can be driven through the configuration window alone', () => {
    const rig = new VirtioPciRig();
    const { at } = rig.probe().get(Cap.PCI)!;
    rig.configWrite(4, 2, 0);
    const aim = (offset: number, length: number): void => {
      rig.configWrite(at + 4, 1, 0);
      rig.configWrite(at + 8, 4, offset);
      rig.configWrite(at + 12, 4, length);
    };
    aim(CommonCfg.DEVICE_STATUS, 1);
    rig.configWrite(at + 16, 1, 3);
    expect(rig.configRead(at + 16, 1)).toBe(3);
    aim(CommonCfg.NUM_QUEUES, 2);
    expect(rig.configRead(at + 16, 4)).toBe(2);
    aim(CommonCfg.NUM_QUEUES + 1, 2);
    expect(rig.configRead(at + 16, 4)).toBe(0);
    aim(0, 3);
    rig.configWrite(at + 16, 4, 1);
    aim(0x4000, 4);
    rig.configWrite(at + 16, 4, 1);
    expect(rig.configRead(at + 16, 4)).toBe(0);
    expect(wrongs(rig)).toEqual(['a window onto nothing']);
  });
});

describe('status', () => {
  it.each([
    ['features that were not offered', 0x1_0000_0080n],
    ['VERSION_1 not accepted', 0x21n],
  ])('refuses FEATURES_OK for %s', (kind, features) => {
    const rig = new VirtioPciRig();
    rig.initialise({ features });
    expect(rig.status).toBe(0x3);
    expect(rig.device.log).toEqual([]);
    expect(wrongs(rig)).toContain(kind);
    expect(wrongs(rig)).toContain('DRIVER_OK without FEATURES_OK');
  });

  it('freezes features at FEATURES_OK, and never takes bits back', () => {
    const rig = started();
    rig.acceptFeatures(0n);
    rig.status = 1;
    expect(rig.status).toBe(0xf);
    expect(wrongs(rig)).toEqual(['features written after FEATURES_OK', 'status bits taken back']);
  });

  it('keeps the first notification before DRIVER_OK for later', () => {
    const rig = new VirtioPciRig();
    rig.probe();
    rig.configWrite(4, 2, 6);
    rig.status = 3;
    rig.acceptFeatures(1n << 32n);
    rig.status = 0xb;
    rig.write(rig.place(Cap.NOTIFY), 2, 0);
    rig.setUpQueue(0, 0x1_0000);
    rig.write(rig.place(Cap.NOTIFY), 2, 0);
    expect(rig.device.log).toEqual([]);
    rig.status = 0xf;
    expect(rig.device.log).toEqual(['activate', 'notify 0']);
    rig.write(rig.place(Cap.NOTIFY) + 4, 2, 1);
    expect(rig.device.log).toHaveLength(2);
  });

  it('asks for a reset with a configuration interrupt, and then leaves the device alone', () => {
    const rig = started({ msix: true });
    rig.device.activation!.needsReset('a loop');
    rig.device.activation!.needsReset('another');
    expect(rig.status).toBe(0x4f);
    expect(rig.interrupts).toEqual(['msix 0']);
    rig.write(rig.place(Cap.NOTIFY), 2, 0);
    expect(rig.device.log).toEqual(['activate']);
    expect(rig.warnings).toHaveLength(1);
  });

  it('asks for a reset when a queue lies outside memory', () => {
    for (const gpa of [0xffff_0000, 0x1_0004]) {
      const rig = new VirtioPciRig();
      rig.probe();
      rig.status = 3;
      rig.acceptFeatures(1n << 32n);
      rig.status = 0xb;
      rig.setUpQueue(0, gpa);
      rig.status = 0xf;
      expect(rig.status).toBe(0x4f);
      expect(rig.device.log).toEqual([]);
      rig.status = 0;
      expect(rig.status).toBe(0);
    }
  });
});

describe('a reset', () => {
  it('shows a status until the device is done, and drops everything in between', async () => {
    const rig = started();
    const before = rig.device.activation!;
    rig.device.holdReset = true;
    rig.status = 0;
    rig.status = 0;
    expect(rig.status).toBe(0xf);
    expect(rig.doorbells.size).toBe(0);
    before.interrupt(0);
    before.configChanged();
    before.needsReset('too late');
    rig.write(rig.place(Cap.NOTIFY), 2, 0);
    rig.status = 1;
    rig.write(rig.common(CommonCfg.QUEUE_SELECT), 2, 1);
    await turn();
    expect(rig.status).toBe(0xf);
    rig.device.finishReset!();
    await turn();
    expect(rig.status).toBe(0);
    expect(rig.read(rig.common(CommonCfg.QUEUE_SELECT), 2)).toBe(0n);
    expect(rig.interrupts).toEqual([]);
    expect(rig.device.log).toEqual(['activate', 'reset']);
    rig.initialise();
    expect(rig.device.log).toEqual(['activate', 'reset', 'activate']);
  });

  it('is a failure of ours when the device throws', async () => {
    const rig = started();
    rig.device.reset = () => Promise.reject(new Error('stuck'));
    rig.status = 0;
    await turn();
    expect(rig.failures).toEqual([new Error('stuck')]);
    expect(rig.status).toBe(0xf);
  });

  it('comes before the close, whatever the driver does', async () => {
    const rig = started();
    rig.device.holdReset = true;
    rig.status = 0;
    const closed = rig.pci.close();
    rig.device.finishReset!();
    await closed;
    rig.initialise();
    await rig.pci.close();
    expect(rig.device.log).toEqual(['activate', 'reset', 'close']);
  });
});

describe('queue registers', () => {
  it('give the size, take a smaller power of two, and nothing else', () => {
    const rig = new VirtioPciRig();
    rig.probe();
    const size = rig.common(CommonCfg.QUEUE_SIZE);
    rig.write(rig.common(CommonCfg.QUEUE_SELECT), 2, 1);
    for (const value of [0, 3, 32, 0xffff]) rig.write(size, 2, value);
    expect(rig.read(size, 2)).toBe(16n);
    rig.write(size, 2, 4);
    expect(rig.read(size, 2)).toBe(4n);
    rig.write(rig.common(CommonCfg.QUEUE_SELECT), 2, 2);
    expect(rig.read(size, 2)).toBe(0n);
    rig.write(size, 2, 4);
    expect(rig.read(rig.common(CommonCfg.QUEUE_MSIX_VECTOR), 2)).toBe(0xffffn);
    expect(wrongs(rig)).toEqual(['a wrong queue size', 'a queue that does not exist']);
  });

  it('stand still once the queue is enabled', () => {
    const rig = started();
    rig.write(rig.common(CommonCfg.QUEUE_DESC), 4, 0xdead);
    rig.write(rig.common(CommonCfg.QUEUE_SIZE), 2, 2);
    rig.write(rig.common(CommonCfg.QUEUE_ENABLE), 2, 1);
    rig.write(rig.common(CommonCfg.QUEUE_ENABLE), 2, 0);
    expect(rig.read(rig.common(CommonCfg.QUEUE_DESC), 8)).toBe(0x2_0000n);
    expect(rig.read(rig.common(CommonCfg.QUEUE_ENABLE), 2)).toBe(1n);
    expect(wrongs(rig)).toEqual([
      'a queue changed after it was enabled',
      'a queue enabled twice',
      'a wrong queue_enable',
    ]);
  });

  it('take whole fields, halves of addresses, or both at once; reads take any place', () => {
    const rig = new VirtioPciRig();
    rig.probe();
    rig.write(rig.common(CommonCfg.QUEUE_DRIVER), 8, 0x1_2345_6789n);
    expect(rig.read(rig.common(CommonCfg.QUEUE_DRIVER) + 2, 4)).toBe(0x0001_2345n);
    for (const [offset, size] of [
      [CommonCfg.DEVICE_STATUS, 4],
      [CommonCfg.QUEUE_SELECT + 1, 1],
      [CommonCfg.DEVICE_FEATURE, 4],
      [0x38, 4],
    ] as const) {
      rig.write(rig.common(offset), size, 1);
    }
    expect(rig.status).toBe(0);
    expect(wrongs(rig)).toEqual(['a write that is no field', 'a write to a read-only field']);
  });
});

describe('without bus mastering', () => {
  /** Makes a chain available in queue 0 that the device may write to. */
  const offer = (rig: VirtioPciRig): void => {
    rig.memory.write(0x1_0000, Uint8Array.of(0, 0, 3, 0, 0, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0));
    rig.memory.write(0x1_1000, Uint8Array.of(0, 0, 1, 0, 0, 0));
  };

  it('a function takes nothing, and looks at every queue once it may', () => {
    const rig = started();
    offer(rig);
    rig.configWrite(4, 2, 2);
    const queue = rig.device.activation!.queues[0]!;
    rig.memory.dirtyPages.clear();
    rig.write(rig.place(Cap.NOTIFY), 2, 0);
    expect(rig.device.log).toEqual(['activate']);
    queue.disableNotifications();
    expect(queue.pop()).toBeUndefined();
    expect(queue.enableNotifications()).toBe(false);
    expect(rig.memory.dirtyPages.size).toBe(0);
    rig.configWrite(4, 2, 6);
    expect(rig.device.log).toEqual(['activate', 'notify 0', 'notify 1']);
    expect(queue.pop()?.writable.lengthBytes).toBe(16);
  });

  it('what was taken before is completed', () => {
    const rig = started();
    offer(rig);
    const queue = rig.device.activation!.queues[0]!;
    const chain = queue.pop()!;
    rig.configWrite(4, 2, 2);
    queue.push(chain.head, 16);
    expect(queue.publish()).toBe(true);
    expect(rig.memory.read(0x1_2002, 2)).toEqual(Uint8Array.of(1, 0));
  });

  it('no message goes out before the bit is set again; INTx is no access to memory', () => {
    const rig = started({ msix: true });
    rig.configWrite(4, 2, 2);
    rig.device.activation!.interrupt(1);
    expect(rig.interrupts).toEqual([]);
    expect(rig.read(rig.msixTable + 0x800, 4)).toBe(4n);
    rig.configWrite(4, 2, 6);
    expect(rig.interrupts).toEqual(['msix 2']);
    const plain = started();
    plain.configWrite(4, 2, 2);
    plain.device.activation!.interrupt(0);
    expect(plain.interrupts).toEqual(['intx high']);
  });

  it('a driver that never sets it gets nothing, also over a reset of the machine', () => {
    const rig = new VirtioPciRig();
    rig.initialise();
    rig.bridge.reset();
    expect(rig.configRead(4, 2) & 4).toBe(0);
    rig.probe();
    rig.status = 3;
    rig.acceptFeatures(1n << 32n);
    rig.status = 0xb;
    rig.setUpQueue(0, 0x1_0000);
    rig.status = 0xf;
    offer(rig);
    expect(rig.device.activation?.queues[0]?.pop()).toBeUndefined();
  });
});

describe('interrupts', () => {
  it('go by each queue its vector, and a masked one waits', () => {
    const rig = started({ msix: true });
    rig.device.activation!.interrupt(1);
    rig.device.activation!.configChanged();
    expect(rig.interrupts).toEqual(['msix 2', 'msix 0']);
    rig.write(rig.msixTable + 16 + 12, 4, 1);
    rig.device.activation!.interrupt(0);
    expect(rig.read(rig.msixTable + 0x800, 4)).toBe(2n);
    rig.write(rig.msixTable + 16 + 12, 4, 0);
    expect(rig.interrupts.at(-1)).toBe('msix 1');
  });

  it('read back a vector that does not exist as none', () => {
    const rig = started({ msix: true });
    rig.write(rig.common(CommonCfg.CONFIG_MSIX_VECTOR), 2, 3);
    rig.write(rig.common(CommonCfg.QUEUE_MSIX_VECTOR), 2, 0x7ff);
    expect(rig.read(rig.common(CommonCfg.CONFIG_MSIX_VECTOR), 2)).toBe(0xffffn);
    expect(rig.read(rig.common(CommonCfg.QUEUE_MSIX_VECTOR), 2)).toBe(0xffffn);
    rig.device.activation!.interrupt(1);
    expect(rig.interrupts).toEqual([]);
  });

  it('go by INTx and ISR without MSI-X', () => {
    const rig = started();
    const isr = rig.place(Cap.ISR);
    rig.device.activation!.interrupt(0);
    rig.device.activation!.configChanged();
    expect(rig.interrupts).toEqual(['intx high']);
    expect(rig.configRead(6, 2) & 8).toBe(8);
    expect(rig.read(isr, 1)).toBe(3n);
    expect(rig.read(isr, 1)).toBe(0n);
    expect(rig.interrupts).toEqual(['intx high', 'intx low']);
    rig.configWrite(4, 2, 0x406);
    rig.device.activation!.interrupt(0);
    expect(rig.configRead(6, 2) & 8).toBe(8);
    expect(rig.interrupts).toHaveLength(2);
    rig.configWrite(4, 2, 6);
    expect(rig.interrupts.at(-1)).toBe('intx high');
    rig.enableMsix();
    expect(rig.interrupts.at(-1)).toBe('intx low');
  });
});

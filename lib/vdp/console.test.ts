import { describe, expect, it } from 'vitest';
import { VirtioConsoleConfig, VirtioConsoleEvent, VirtioConsoleFeature } from '../abi/virtio.js';
import { FakeGuestMemory } from '../memory/fake.js';
import type { ConsoleGuestEnd, ConsolePortService } from '../vsp/console/contract.js';
import type { DeviceContract } from '../vsp/contract.js';
import { ConsoleDevice, type ConsoleDeviceOptions } from './console.js';
import { FakeActivation } from './fake-activation.js';
import { MockDriver } from './mock-driver.js';
import { SplitQueue } from './split-queue.js';

const { DEVICE_READY, PORT_ADD, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME } = VirtioConsoleEvent;
const turn = () => new Promise((resolve) => setImmediate(resolve));

class FakePort implements ConsolePortService {
  readonly contract: DeviceContract = { class: 'console', functions: {}, backend: { kind: 'fake' }, rebinds: 0 };
  readonly name: string;
  readonly isConsole: boolean;
  guest: ConsoleGuestEnd | undefined;
  received = '';
  readonly calls: string[] = [];
  /** output() is answered with a promise. */
  slow = false;
  goOn: () => void = () => undefined;
  busy: Promise<void> | undefined;

  constructor(name: string, isConsole = false) {
    this.name = name;
    this.isConsole = isConsole;
  }

  attach(guest: ConsoleGuestEnd | undefined): void {
    this.guest = guest;
  }

  output(bytes: Uint8Array): Promise<void> | undefined {
    this.received += Buffer.from(bytes).toString('latin1');
    if (!this.slow) return undefined;
    const busy = new Promise<void>((resolve) => (this.goOn = resolve)).then(() => (this.busy = undefined));
    return (this.busy = busy);
  }

  onGuestReady(): void {
    this.calls.push('ready');
  }

  guestOpen(open: boolean): void {
    this.calls.push(open ? 'open' : 'closed');
  }
}

const text = (value: string) => Buffer.from(value, 'latin1');

async function rig(
  ports: FakePort[],
  options: ConsoleDeviceOptions & { features?: bigint; size?: number; memory?: FakeGuestMemory } = {},
) {
  const memory = options.memory ?? new FakeGuestMemory(4 << 20);
  const device = new ConsoleDevice('con0', ports, options);
  const drivers = device.queueSizes.map(
    (size, index) => new MockDriver(memory, { size: options.size ?? size, gpa: 0x10000 + 0x2000 * index, index }),
  );
  const queues = drivers.map((driver) => new SplitQueue(driver.queueOptions));
  const activation = new FakeActivation(options.features ?? device.features, queues);
  device.activate(activation);
  await turn();
  let next = 0x100000;
  const heads = new Map<string, { gpa: number; length: number }>();
  /** Gives a buffer to a receive queue. */
  const give = (queue: number, length: number) => {
    const head = drivers[queue]!.add([{ gpa: next, length, writable: true }])!;
    heads.set(`${queue} ${head}`, { gpa: next, length });
    next += length;
    if (drivers[queue]!.publish()) device.notify(queue);
  };
  /** What came into a receive queue. */
  const received = (queue: number) =>
    drivers[queue]!.collect().map(({ head, length }) => memory.read(heads.get(`${queue} ${head}`)!.gpa, length));
  const send = (queue: number, bytes: Uint8Array) => {
    memory.write(next, bytes);
    drivers[queue]!.add([{ gpa: next, length: bytes.length }]);
    next += bytes.length;
    if (drivers[queue]!.publish()) device.notify(queue);
  };
  const control = (id: number, event: number, value: number) => {
    const view = new DataView(new ArrayBuffer(8));
    view.setUint32(0, id, true);
    view.setUint16(4, event, true);
    view.setUint16(6, value, true);
    send(3, new Uint8Array(view.buffer));
  };
  const messages = () =>
    received(2).map((bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      const rest = bytes.subarray(8);
      const [id, event, value] = [view.getUint32(0, true), view.getUint16(4, true), view.getUint16(6, true)];
      if (event === PORT_NAME) return [id, event, Buffer.from(rest).toString()];
      return rest.length === 0 ? [id, event, value] : [id, event, ...new Uint16Array(rest.slice().buffer)];
    });
  const giveControl = (count = 30) => {
    for (let index = 0; index < count; index++) give(2, 64);
  };
  return { memory, device, drivers, activation, give, received, send, control, messages, giveControl };
}

describe('a guest that resets its console again and again', () => {
  it('gets no more of its output into the host than one that does not', async () => {
    const port = new FakePort('', true);
    port.slow = true;
    const { memory, device, drivers, send } = await rig([port]);
    send(1, text('first'));
    for (let round = 0; round < 20; round++) {
      await device.reset();
      drivers[1] = new MockDriver(memory, { size: 64, gpa: 0x12000, index: 1 });
      const queues = [undefined, new SplitQueue(drivers[1].queueOptions)];
      device.activate(new FakeActivation(device.features, queues));
      await turn();
      send(1, text(`round ${round}`));
      await turn();
    }
    expect(port.received).toBe('first');
    port.goOn();
    await turn();
    expect(port.received).toBe('firstround 19');
  });
});

describe('a console alone', () => {
  it('has two queues, is open at once, and says its size in the configuration space', async () => {
    const port = new FakePort('', true);
    const { device, activation, send, give, received, drivers } = await rig([port]);
    expect([device.features, device.queueSizes]).toEqual([VirtioConsoleFeature.SIZE, [64, 64]]);
    expect(port.calls).toEqual(['open']);
    port.guest!.resize({ columns: 132, rows: 43 });
    expect(activation.configChanges).toBe(1);
    expect(device.config.read(VirtioConsoleConfig.COLS, 2)).toBe(132);
    expect(device.config.read(VirtioConsoleConfig.ROWS, 2)).toBe(43);
    send(1, text('hello '));
    send(1, text('host'));
    expect(port.received).toBe('hello host');
    expect(drivers[1]!.collect()).toHaveLength(2);
    expect(port.guest!.offer(text('to the guest'))).toBe(0);
    give(0, 5);
    expect(port.calls).toEqual(['open', 'ready']);
    expect(port.guest!.offer(text('to the guest'))).toBe(5);
    give(0, 64);
    expect(port.guest!.offer(text('e guest'))).toBe(7);
    expect(received(0).map(String)).toEqual(['to th', 'e guest'].map((part) => String(new Uint8Array(text(part)))));
    expect(activation.interrupts).toEqual([1, 1, 0, 0]);
  });
});

describe('several ports', () => {
  const three = () => [new FakePort('', true), new FakePort('org.qemu.guest_agent.0'), new FakePort('logs')];

  it('are added, named and opened as the driver gets ready', async () => {
    const ports = three();
    const { device, control, messages, giveControl } = await rig(ports);
    expect(device.queueSizes).toEqual([64, 64, 32, 32, 64, 64, 64, 64]);
    expect(device.config.read(VirtioConsoleConfig.MAX_NR_PORTS, 4)).toBe(3);
    ports[1]!.guest!.hostOpen(true);
    giveControl();
    expect(messages()).toEqual([]);
    control(0, DEVICE_READY, 1);
    expect(messages()).toEqual([
      [0, PORT_ADD, 0],
      [1, PORT_ADD, 0],
      [2, PORT_ADD, 0],
    ]);
    control(0, DEVICE_READY, 1);
    ports[0]!.guest!.resize({ columns: 80, rows: 25 });
    control(1, PORT_READY, 1);
    control(0, PORT_READY, 1);
    control(1, PORT_READY, 1);
    expect(messages()).toEqual([
      [1, PORT_NAME, 'org.qemu.guest_agent.0'],
      [1, PORT_OPEN, 1],
      [0, CONSOLE_PORT, 1],
      [0, RESIZE, 80, 25],
    ]);
    expect(device.inspect()).toMatchObject({ ignored: 2 });
    control(1, PORT_OPEN, 1);
    control(1, PORT_OPEN, 1);
    control(1, PORT_OPEN, 0);
    expect(ports.map(({ calls }) => calls)).toEqual([[], ['open', 'closed'], []]);
    ports[1]!.guest!.hostOpen(false);
    ports[1]!.guest!.resize({ columns: 1, rows: 1 });
    expect(messages()).toEqual([[1, PORT_OPEN, 0]]);
  });

  it('can tell rows before columns', async () => {
    const ports = three();
    const { control, messages, giveControl } = await rig(ports, { resizeRowsFirst: true });
    giveControl();
    control(0, DEVICE_READY, 1);
    control(0, PORT_READY, 1);
    messages();
    ports[0]!.guest!.resize({ columns: 80, rows: 25 });
    expect(messages()).toEqual([[0, RESIZE, 25, 80]]);
  });

  it('keep what is to be told until there are buffers, and tell the last of it', async () => {
    const ports = three();
    const { control, messages, giveControl, give } = await rig(ports);
    control(0, DEVICE_READY, 1);
    give(2, 64);
    expect(messages()).toEqual([[0, PORT_ADD, 0]]);
    giveControl(2);
    messages();
    control(2, PORT_READY, 1);
    for (let index = 0; index < 1000; index++) ports[2]!.guest!.hostOpen(index % 2 === 0);
    ports[2]!.guest!.hostOpen(true);
    giveControl();
    expect(messages()).toEqual([
      [2, PORT_NAME, 'logs'],
      [2, PORT_OPEN, 1],
    ]);
  });

  it('ignore messages that make no sense', async () => {
    const ports = three();
    const { device, control, send, messages, giveControl, activation } = await rig(ports);
    giveControl();
    control(1, PORT_READY, 1);
    control(1, PORT_OPEN, 1);
    control(0, DEVICE_READY, 0);
    control(0, DEVICE_READY, 1);
    control(99, PORT_READY, 1);
    control(0xffffffff, PORT_OPEN, 1);
    control(0, 77, 0);
    control(2, PORT_READY, 0);
    send(3, Uint8Array.of(1, 2, 3));
    expect(messages()).toHaveLength(3);
    expect(ports.flatMap(({ calls }) => calls)).toEqual([]);
    expect(activation.resetReasons).toEqual([]);
    expect(device.inspect()).toMatchObject({ ignored: 8 });
  });

  it('drop a message that its buffer does not hold', async () => {
    const ports = three();
    const { device, control, drivers, give, giveControl, messages } = await rig(ports);
    giveControl(3);
    control(0, DEVICE_READY, 1);
    messages();
    control(2, PORT_READY, 1);
    give(2, 9);
    expect(drivers[2]!.collect()).toMatchObject([{ length: 0 }]);
    expect(device.inspect()).toMatchObject({ ignored: 1 });
  });

  it('take messages in bounded steps', async () => {
    const ports = three();
    const { device, control, drivers } = await rig(ports);
    for (let index = 0; index < 100; index++) {
      control(0, 77, 0);
      drivers[3]!.collect();
    }
    await turn();
    expect(device.inspect()).toMatchObject({ ignored: 100 });
  });

  it('hold input while no process in the guest has the port open', async () => {
    const ports = three();
    const { control, give, giveControl, received } = await rig(ports);
    giveControl();
    control(0, DEVICE_READY, 1);
    control(1, PORT_READY, 1);
    give(4, 100);
    expect(ports[1]!.guest!.offer(text('early'))).toBe(0);
    control(1, PORT_OPEN, 1);
    expect(ports[1]!.calls).toEqual(['open', 'ready']);
    expect(ports[1]!.guest!.offer(text('early'))).toBe(5);
    expect(received(4)).toHaveLength(1);
  });

  it('are port 0 alone where the driver knows of no more', async () => {
    const ports = three();
    const { device, send } = await rig(ports, { features: 0n });
    expect(ports.map(({ guest }) => guest !== undefined)).toEqual([true, false, false]);
    send(1, text('x'));
    send(5, text('y'));
    send(3, text('z'));
    device.notify(99);
    expect(ports.map(({ received }) => received)).toEqual(['x', '', '']);
  });
});

describe('backpressure', () => {
  it('leaves with the guest what the service does not take', async () => {
    const port = new FakePort('', true);
    const { send, drivers } = await rig([port]);
    port.slow = true;
    send(1, text('a'));
    send(1, text('b'));
    expect([port.received, drivers[1]!.usedIndex]).toEqual(['a', 1]);
    port.goOn();
    await turn();
    expect([port.received, drivers[1]!.usedIndex]).toEqual(['ab', 2]);
    send(1, text('c'));
    port.goOn();
    await turn();
    expect(port.received).toBe('abc');
  });

  it('takes a long chain in pieces, and lets others have their turn', async () => {
    const port = new FakePort('', true);
    const { drivers, device } = await rig([port]);
    drivers[1]!.add([{ gpa: 0x100000, length: 3 * 2 ** 20 - 5 }]);
    drivers[1]!.publish();
    device.notify(1);
    expect([port.received.length, drivers[1]!.usedIndex]).toEqual([2 ** 20, 0]);
    while (drivers[1]!.usedIndex === 0) await turn();
    expect(port.received.length).toBe(3 * 2 ** 20 - 5);
  });

  it('takes buffers of no bytes in bounded steps', async () => {
    const port = new FakePort('', true);
    const { give, drivers } = await rig([port], { size: 2 });
    give(0, 0);
    give(0, 0);
    expect(port.guest!.offer(text('x'))).toBe(0);
    expect(drivers[0]!.collect()).toHaveLength(2);
    await turn();
    expect(port.calls).toEqual(['open', 'ready']);
  });
});

describe('what a driver does wrong', () => {
  it.each<[string, number, { gpa: number; length: number; writable?: boolean }]>([
    ['a writable descriptor in a transmit queue', 1, { gpa: 0x100000, length: 1, writable: true }],
    ['a writable descriptor in the control queue', 3, { gpa: 0x100000, length: 8, writable: true }],
    ['a readable descriptor in the control queue', 2, { gpa: 0x100000, length: 8 }],
    ['a readable descriptor in a receive queue', 0, { gpa: 0x100000, length: 8 }],
  ])('%s: needs a reset', async (reason, queue, piece) => {
    const ports = [new FakePort('', true), new FakePort('x')];
    const { device, drivers, activation, control, give } = await rig(ports);
    if (queue === 2) control(0, DEVICE_READY, 1);
    if (queue === 0) {
      control(0, DEVICE_READY, 1);
      for (let index = 0; index < 3; index++) give(2, 64);
      control(0, PORT_OPEN, 1);
    }
    drivers[queue]!.add([piece]);
    drivers[queue]!.publish();
    device.notify(queue);
    if (queue === 0) ports[0]!.guest!.offer(text('x'));
    expect(activation.resetReasons).toEqual([reason]);
    expect(ports.map(({ guest }) => guest)).toEqual([undefined, undefined]);
    device.notify(queue);
    expect(activation.resetReasons).toHaveLength(1);
  });

  it.each([1, 2, 3])('a broken queue %d: needs a reset', async (queue) => {
    const { device, drivers, activation, control } = await rig([new FakePort('', true), new FakePort('x')]);
    control(0, DEVICE_READY, 1);
    drivers[queue]!.setAvailableIndex(999);
    device.notify(queue);
    expect(activation.resetReasons).toHaveLength(1);
  });
});

describe('reset', () => {
  it('closes the guest ends, and nothing is touched behind it', async () => {
    const port = new FakePort('', true);
    const { device, send, drivers, memory } = await rig([port]);
    const guest = port.guest!;
    port.slow = true;
    send(1, text('a'));
    send(1, text('b'));
    await device.reset();
    expect([port.guest, port.calls]).toEqual([undefined, ['open', 'closed']]);
    memory.dirtyPages.clear();
    port.goOn();
    await turn();
    expect(guest.offer(text('x'))).toBe(0);
    guest.hostOpen(true);
    guest.resize({ columns: 1, rows: 1 });
    device.notify(1);
    expect([port.received, drivers[1]!.usedIndex, memory.dirtyPages.size]).toEqual(['a', 1, 0]);
    device.close();
  });

  it('wants 1 to 31 ports', () => {
    expect(() => new ConsoleDevice('c', [])).toThrow(RangeError);
    expect(
      () =>
        new ConsoleDevice(
          'c',
          Array.from({ length: 32 }, () => new FakePort('x')),
        ),
    ).toThrow(RangeError);
  });
});

import { describe, expect, it } from 'vitest';
import { VirtioBlkConfig, VirtioBlkFeature, VirtioBlkType } from '../abi/virtio.js';
import { FakeGuestMemory } from '../memory/fake.js';
import { BlockDevice } from './block.js';
import { FakeActivation } from './fake-activation.js';
import { FakeBlockService } from './fake-block-service.js';
import { MockDriver, type Piece } from './mock-driver.js';
import { SplitQueue } from './split-queue.js';

const HEADER = 0x4000;
const DATA = 0x10000;
const STATUS = 0x5000;
const { IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES } = VirtioBlkType;
const OK = 0;
const IOERR = 1;
const UNSUPP = 2;
const UNTOUCHED = 0xee;

function rig(options: { hold?: boolean; readOnly?: boolean; features?: bigint } = {}) {
  const memory = new FakeGuestMemory(1 << 20);
  const service = new FakeBlockService(1 << 20, options);
  const device = new BlockDevice(service, { queueSize: 64 });
  const driver = new MockDriver(memory, { size: 64, gpa: 0x1000, eventIndex: true, indirect: true });
  const queue = new SplitQueue(driver.queueOptions);
  const features = options.features ?? device.features;
  const activation = new FakeActivation(features, [queue]);
  device.activate(activation);
  const header = (type: number, sector: bigint | number = 0, gpa = HEADER) => {
    const bytes = new DataView(new ArrayBuffer(16));
    bytes.setUint32(0, type, true);
    bytes.setBigUint64(8, BigInt(sector), true);
    memory.write(gpa, new Uint8Array(bytes.buffer));
  };
  const ranges = (...list: [sector: bigint | number, sectors: number, flags: number][]) => {
    const bytes = new DataView(new ArrayBuffer(16 * list.length));
    list.forEach(([sector, sectors, flags], index) => {
      bytes.setBigUint64(16 * index, BigInt(sector), true);
      bytes.setUint32(16 * index + 8, sectors, true);
      bytes.setUint32(16 * index + 12, flags, true);
    });
    memory.write(DATA, new Uint8Array(bytes.buffer));
    return { gpa: DATA, length: 16 * list.length };
  };
  /** Sends one request; the status byte, and the used length. */
  const send = (pieces: readonly Piece[]) => {
    memory.write(STATUS, Uint8Array.of(UNTOUCHED));
    driver.add(pieces);
    driver.publish();
    device.notify(0);
    const used = driver.collect();
    driver.enableInterrupts();
    return { status: memory.read(STATUS, 1)[0], length: used[0]?.length };
  };
  return { memory, service, device, driver, queue, activation, header, ranges, send };
}

const HEAD: Piece = { gpa: HEADER, length: 16 };
const TAIL: Piece = { gpa: STATUS, length: 1, writable: true };
const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('BlockDevice', () => {
  it('reads and writes, however the bytes are cut into descriptors', () => {
    const { memory, service, header, send } = rig();
    const bytes = Uint8Array.from({ length: 1024 }, (_, index) => index * 7);
    memory.write(DATA, bytes);
    header(OUT, 3);
    expect(send([HEAD, { gpa: DATA, length: 1000 }, { gpa: DATA + 1000, length: 24 }, TAIL])).toEqual({
      status: OK,
      length: 1,
    });
    expect(service.disk.subarray(1536, 2560)).toEqual(bytes);
    // The header in two pieces and together with data, data and status in one piece.
    memory.write(HEADER + 16, bytes.subarray(0, 512));
    header(OUT, 8);
    expect(send([{ gpa: HEADER, length: 7 }, { gpa: HEADER + 7, length: 9 + 512 }, TAIL]).status).toBe(OK);
    expect(service.disk.subarray(4096, 4608)).toEqual(bytes.subarray(0, 512));
    header(IN, 3);
    memory.write(DATA + 0x2000, new Uint8Array(1025).fill(UNTOUCHED));
    expect(send([HEAD, { gpa: DATA + 0x2000, length: 1025, writable: true }]).length).toBe(1025);
    expect(memory.read(DATA + 0x2000, 1025)).toEqual(Uint8Array.of(...bytes, OK));
    expect(service.log).toEqual(['write 1536 1024', 'write 4096 512', 'read 1536 1024']);
  });

  it('does flush, identify, discard and write-zeroes', () => {
    const { memory, service, header, ranges, send } = rig();
    header(FLUSH);
    expect(send([HEAD, TAIL])).toEqual({ status: OK, length: 1 });
    header(GET_ID);
    memory.fill(DATA, 0xff, 32);
    expect(send([HEAD, { gpa: DATA, length: 20, writable: true }, TAIL])).toEqual({ status: OK, length: 21 });
    expect(Buffer.from(memory.read(DATA, 21)).toString('latin1')).toBe('fake-serial'.padEnd(20, '\0') + '\xff');
    service.serial = '12345678901234567890';
    expect(send([HEAD, { gpa: DATA, length: 30, writable: true }, TAIL])).toEqual({ status: OK, length: 20 });
    expect(send([HEAD, { gpa: DATA, length: 4, writable: true }, TAIL])).toEqual({ status: OK, length: 5 });
    header(DISCARD);
    expect(send([HEAD, ranges([8, 8, 0], [32, 1, 0]), TAIL]).status).toBe(OK);
    header(WRITE_ZEROES);
    service.disk.fill(1);
    expect(send([HEAD, ranges([0, 1, 1]), TAIL]).status).toBe(OK);
    expect(service.disk.subarray(0, 513)).toEqual(Uint8Array.of(...new Uint8Array(512), 1));
    expect(service.log).toEqual(['flush', 'discard 4096 4096', 'discard 16384 512', 'write-zeroes 0 512']);
  });

  it.each<[string, number, Piece[], number]>([
    ['a short header', IN, [{ gpa: HEADER, length: 15 }, { gpa: DATA, length: 512, writable: true }, TAIL], IOERR],
    ['no header', IN, [TAIL], IOERR],
    ['a read with data to read from', IN, [HEAD, { gpa: DATA, length: 512 }, TAIL], IOERR],
    ['a write with data to write to', OUT, [HEAD, { gpa: DATA, length: 512, writable: true }, TAIL], IOERR],
    ['a read of nothing', IN, [HEAD, TAIL], IOERR],
    ['a write of nothing', OUT, [HEAD, TAIL], IOERR],
    ['a part of a sector', OUT, [HEAD, { gpa: DATA, length: 511 }, TAIL], IOERR],
    ['an id without a place', GET_ID, [HEAD, TAIL], IOERR],
    ['a discard of nothing', DISCARD, [HEAD, TAIL], IOERR],
    ['a cut range', DISCARD, [HEAD, { gpa: DATA, length: 15 }, TAIL], IOERR],
    ['too many ranges', DISCARD, [HEAD, { gpa: DATA, length: 65 * 16 }, TAIL], IOERR],
    ['an unknown type', 77, [HEAD, TAIL], UNSUPP],
    ['a SCSI command', 2, [HEAD, TAIL], UNSUPP],
    ['a secure erase', 14, [HEAD, { gpa: DATA, length: 16 }, TAIL], UNSUPP],
  ])('answers %s', (_name, type, pieces, status) => {
    const { service, activation, header, send } = rig();
    header(type);
    expect(send(pieces).status).toBe(status);
    expect(service.log).toEqual([]);
    expect(activation.resetReasons).toEqual([]);
  });

  it('answers ranges that can not be', () => {
    const { service, header, ranges, send } = rig();
    header(DISCARD);
    expect(send([HEAD, ranges([0, 8, 1]), TAIL]).status).toBe(UNSUPP);
    expect(send([HEAD, ranges([2n ** 60n, 8, 0]), TAIL]).status).toBe(IOERR);
    expect(send([HEAD, ranges([0, 0, 0]), TAIL]).status).toBe(IOERR);
    expect(send([HEAD, ranges([0, 2 ** 22 + 1, 0]), TAIL]).status).toBe(IOERR);
    header(WRITE_ZEROES);
    expect(send([HEAD, ranges([0, 0, 0], [0, 8, 2]), TAIL]).status).toBe(UNSUPP);
    expect(service.log).toEqual([]);
    header(IN, 2n ** 60n);
    expect(send([HEAD, { gpa: DATA, length: 512, writable: true }, TAIL]).status).toBe(IOERR);
    header(IN, 2048);
    expect(send([HEAD, { gpa: DATA, length: 512, writable: true }, TAIL])).toEqual({ status: IOERR, length: 0 });
    expect(service.log).toEqual(['read 1048576 512']);
  });

  it('asks for a reset when there is no place for a status, and stops', () => {
    const { service, activation, header, send } = rig();
    header(FLUSH);
    expect(send([HEAD])).toEqual({ status: UNTOUCHED, length: undefined });
    expect(activation.resetReasons).toEqual(['a request without a place for its status (head 0)']);
    expect(send([HEAD, TAIL]).status).toBe(UNTOUCHED);
    expect(service.log).toEqual([]);
    expect(activation.resetReasons).toHaveLength(1);
  });

  it('tells what was completed before it asks for a reset', () => {
    const { activation, driver, device, header } = rig();
    header(FLUSH);
    driver.add([HEAD, TAIL]);
    driver.add([HEAD]);
    driver.publish();
    device.notify(0);
    expect(driver.collect()).toHaveLength(1);
    expect(activation.interrupts).toEqual([0]);
    expect(activation.resetReasons).toHaveLength(1);
  });

  it('asks for a reset when the queue breaks', () => {
    const { activation, driver, device } = rig();
    driver.setAvailableIndex(1000);
    device.notify(0);
    device.notify(0);
    expect(activation.resetReasons).toEqual(['the available index went from 0 to 1000 in a queue of 64']);
  });

  it('gives requests back as they complete, with one interrupt for those of a turn', async () => {
    const { service, device, driver, activation, header, memory } = rig({ hold: true });
    header(IN, 0);
    const pieces = (index: number): Piece[] => [
      HEAD,
      { gpa: DATA + 512 * index, length: 512, writable: true },
      { gpa: STATUS + index, length: 1, writable: true },
    ];
    const heads = [0, 1, 2, 3].map((index) => driver.add(pieces(index)));
    driver.publish();
    device.notify(0);
    expect(service.held).toHaveLength(4);
    service.held[2]!.finish();
    service.held[0]!.finish('io');
    service.held[3]!.finish('unsupported');
    expect(driver.collect()).toEqual([]);
    await turn();
    expect(driver.collect()).toEqual([
      { head: heads[2], length: 513 },
      { head: heads[0], length: 0 },
      { head: heads[3], length: 0 },
    ]);
    expect(activation.interrupts).toEqual([0]);
    expect([...memory.read(STATUS, 4)]).toEqual([IOERR, 0, OK, UNSUPP]);
    driver.enableInterrupts();
    service.held[1]!.finish('read-only');
    await turn();
    expect(activation.interrupts).toEqual([0, 0]);
    expect(memory.read(STATUS + 1, 1)[0]).toBe(IOERR);
    expect(device.inspect()).toMatchObject({ inService: 0, failed: 3, interrupts: 2, requests: { read: 4 } });
  });

  it('refuses changes of a read-only disk, and does not offer them', () => {
    const { service, device, header, send } = rig({ readOnly: true });
    expect(device.features & (VirtioBlkFeature.DISCARD | VirtioBlkFeature.WRITE_ZEROES)).toBe(0n);
    expect(device.features & VirtioBlkFeature.RO).not.toBe(0n);
    header(OUT);
    expect(send([HEAD, { gpa: DATA, length: 512 }, TAIL]).status).toBe(IOERR);
    header(DISCARD);
    expect(send([HEAD, { gpa: DATA, length: 16 }, TAIL]).status).toBe(UNSUPP);
    expect(service.log).toEqual([]);
  });

  it('makes writes durable before they are done where the driver can not flush', async () => {
    const none = rig({ features: 0n });
    none.header(OUT);
    expect(none.send([HEAD, { gpa: DATA, length: 512 }, TAIL]).status).toBe(OK);
    expect(none.service.log).toEqual(['write 0 512', 'flush']);
    const { device, service, header, send, memory } = rig();
    expect(device.config.read(VirtioBlkConfig.WRITEBACK, 1)).toBe(1);
    device.config.write(VirtioBlkConfig.WRITEBACK, 1, 0);
    device.config.write(0, 8, 0n);
    header(OUT);
    service.hold = true;
    send([HEAD, { gpa: DATA, length: 512 }, TAIL]);
    service.held[0]!.finish();
    expect(memory.read(STATUS, 1)[0]).toBe(UNTOUCHED);
    service.held[1]!.finish('io');
    expect(memory.read(STATUS, 1)[0]).toBe(IOERR);
    await device.reset();
    expect(device.config.read(VirtioBlkConfig.WRITEBACK, 1)).toBe(1);
    const wce = rig({ features: VirtioBlkFeature.CONFIG_WCE });
    expect(wce.device.config.read(VirtioBlkConfig.WRITEBACK, 1)).toBe(0);
  });

  it('does what was made available before it was active', async () => {
    const { device, driver, activation, header, memory } = rig();
    header(FLUSH);
    driver.add([HEAD, TAIL]);
    driver.publish();
    await turn();
    expect(memory.read(STATUS, 1)[0]).toBe(OK);
    expect(activation.interrupts).toEqual([0]);
    expect(device.inspect()).toMatchObject({ active: true });
  });
});

describe('reset', () => {
  it('waits for what is in flight, which then touches nothing', async () => {
    const { service, device, driver, memory, header, activation } = rig({ hold: true });
    header(FLUSH);
    memory.fill(STATUS, UNTOUCHED, 16);
    for (let index = 0; index < 3; index++) {
      driver.add([HEAD, { gpa: STATUS + index, length: 1, writable: true }]);
    }
    driver.publish();
    device.notify(0);
    service.held[0]!.finish();
    const done: string[] = [];
    const first = device.reset().then(() => done.push('first'));
    const second = device.reset().then(() => done.push('second'));
    await turn();
    service.held[1]!.finish();
    await turn();
    expect(done).toEqual([]);
    service.held[2]!.finish('closed');
    await Promise.all([first, second]);
    expect(done.sort()).toEqual(['first', 'second']);
    // The first was completed before the reset, and published no more.
    expect([...memory.read(STATUS, 3)]).toEqual([OK, UNTOUCHED, UNTOUCHED]);
    expect([driver.usedIndex, activation.interrupts.length]).toEqual([0, 0]);
    device.notify(0);
    expect(service.held).toHaveLength(3);
  });

  it('leaves a device that can be activated anew', async () => {
    const { service, device, memory, header } = rig();
    await device.reset();
    const driver = new MockDriver(memory, { size: 64, gpa: 0x1000 });
    const activation = new FakeActivation(device.features, [new SplitQueue(driver.queueOptions)]);
    device.activate(activation);
    header(FLUSH);
    driver.add([HEAD, TAIL]);
    driver.publish();
    device.notify(0);
    expect([service.log, activation.interrupts]).toEqual([['flush'], [0]]);
    device.close();
    service.resize(512);
    expect(activation.configChanges).toBe(0);
    device.notify(0);
  });

  it('needs no queue', async () => {
    const device = new BlockDevice(new FakeBlockService(512));
    device.activate(new FakeActivation(device.features, [undefined]));
    device.notify(0);
    device.notify(7);
    await device.reset();
  });
});

describe('configuration space', () => {
  it('holds what the service says', () => {
    const { device } = rig();
    const read = (offset: number, size: number) => device.config.read(offset, size);
    expect(read(VirtioBlkConfig.CAPACITY, 8)).toBe(2048n);
    expect(read(VirtioBlkConfig.CAPACITY, 4)).toBe(2048);
    expect(read(VirtioBlkConfig.SEG_MAX, 4)).toBe(62);
    expect(read(VirtioBlkConfig.BLK_SIZE, 4)).toBe(512);
    expect(read(VirtioBlkConfig.PHYSICAL_BLOCK_EXP, 1)).toBe(3);
    expect(read(VirtioBlkConfig.MIN_IO_SIZE, 2)).toBe(8);
    expect(read(VirtioBlkConfig.OPT_IO_SIZE, 4)).toBe(128);
    expect(read(VirtioBlkConfig.MAX_DISCARD_SEG, 4)).toBe(64);
    expect(read(VirtioBlkConfig.DISCARD_SECTOR_ALIGNMENT, 4)).toBe(8);
    expect(read(VirtioBlkConfig.WRITE_ZEROES_MAY_UNMAP, 1)).toBe(1);
    expect(read(58, 4)).toBe(0);
    expect(read(4096, 8)).toBe(0n);
  });

  it('follows a new size, and tells the driver', () => {
    const { device, service, activation } = rig();
    service.resize(4096);
    expect(device.config.read(VirtioBlkConfig.CAPACITY, 8)).toBe(8n);
    expect(activation.configChanges).toBe(1);
  });
});

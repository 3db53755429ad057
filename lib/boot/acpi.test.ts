import { describe, expect, it } from 'vitest';
import { FakeGuestMemory } from '../memory/fake.js';
import { defaultFixedHardware } from './acpi-tables.js';
import { type AcpiOptions, buildAcpi, checksum, table } from './acpi.js';
import { device, eisaId, nameDecl, scope } from './aml.js';
import { viewOf } from './bytes.js';

const MiB = 2 ** 20;
const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => total + byte, 0) & 0xff;
const text = (bytes: Uint8Array): string => String.fromCharCode(...bytes);
const com1 = scope('\\_SB', device('COM1', nameDecl('_HID', eisaId('PNP0501'))));

/** Follows the pointers as a kernel does: RSDP, XSDT, tables. */
function readTables(options: AcpiOptions) {
  const memory = new FakeGuestMemory(MiB);
  const rsdpGpa = buildAcpi(memory, options);
  const read = (gpa: number): Uint8Array => memory.read(gpa, viewOf(memory.read(gpa + 4, 4)).getUint32(0, true));
  const rsdp = memory.read(rsdpGpa, 36);
  const xsdt = read(Number(viewOf(rsdp).getBigUint64(24, true)));
  const rsdt = read(viewOf(rsdp).getUint32(16, true));
  const tables = new Map<string, Uint8Array>();
  for (let at = 36; at < xsdt.length; at += 8) {
    const bytes = read(Number(viewOf(xsdt).getBigUint64(at, true)));
    tables.set(text(bytes.subarray(0, 4)), bytes);
  }
  const fadt = tables.get('FACP')!;
  const dsdt = read(Number(viewOf(fadt).getBigUint64(140, true)));
  const facsGpa = viewOf(fadt).getUint32(36, true);
  return { memory, rsdpGpa, rsdp, xsdt, rsdt, tables, fadt, dsdt, facs: read(facsGpa), facsGpa };
}

const plain: AcpiOptions = { cpus: 2, contributors: [{ dsdt: () => [com1] }] };

describe('the tables', () => {
  it('begin where kernels search, and every sum is 0', () => {
    const { rsdpGpa, rsdp, xsdt, rsdt, tables, dsdt } = readTables(plain);
    expect(rsdpGpa).toBe(0xe0000);
    expect(text(rsdp.subarray(0, 8))).toBe('RSD PTR ');
    expect(rsdp[15]).toBe(2);
    expect(sum(rsdp.subarray(0, 20))).toBe(0);
    for (const bytes of [rsdp, xsdt, rsdt, dsdt, ...tables.values()]) expect(sum(bytes)).toBe(0);
    expect([...tables.keys()]).toEqual(['FACP', 'APIC']);
  });

  it('are the same by the RSDT and by the XSDT', () => {
    const { rsdt, xsdt } = readTables(plain);
    expect((rsdt.length - 36) / 4).toBe((xsdt.length - 36) / 8);
    for (let index = 0; index < 2; index++) {
      expect(viewOf(rsdt).getUint32(36 + 4 * index, true)).toBe(
        Number(viewOf(xsdt).getBigUint64(36 + 8 * index, true)),
      );
    }
  });

  it('hold what devices contribute, behind \\_S5', () => {
    const { dsdt } = readTables(plain);
    expect(text(dsdt.subarray(0, 4))).toBe('DSDT');
    expect(dsdt[8]).toBe(2);
    const aml = Buffer.from(dsdt.subarray(36)).toString('hex');
    expect(aml).toBe(`085c5f53355f1208040a050a050000${Buffer.from(com1).toString('hex')}`);
  });

  it('take tables of others', () => {
    const { tables } = readTables({
      ...plain,
      extraTables: [{ signature: 'MCFG', revision: 1, body: new Uint8Array(24) }],
    });
    expect([...tables.keys()]).toEqual(['FACP', 'APIC', 'MCFG']);
    expect(() => table('TOOLONG', 1, new Uint8Array(0))).toThrow(RangeError);
  });

  it('say so when devices contribute more than there is room for', () => {
    const huge = { dsdt: () => [new Uint8Array(0x20000)] };
    expect(() => buildAcpi(new FakeGuestMemory(MiB), { cpus: 1, contributors: [huge] })).toThrow(
      expect.objectContaining({ code: 'ERR_DEVICE' }),
    );
  });
});

describe('the FADT', () => {
  const { fadt, facs, facsGpa } = readTables(plain);
  const view = viewOf(fadt);

  it('is of revision 6.5 and not hardware-reduced, with the FACS in its 32-bit field alone', () => {
    expect(fadt.length).toBe(276);
    expect([fadt[8], fadt[131]]).toEqual([6, 5]);
    expect(view.getUint32(112, true)).toBe(0x565);
    expect(view.getUint32(112, true) & (1 << 20)).toBe(0);
    expect(view.getBigUint64(132, true)).toBe(0n);
    expect(facsGpa % 64).toBe(0);
    expect(text(facs.subarray(0, 4))).toBe('FACS');
    expect(facs.length).toBe(64);
  });

  it('says where the registers are, twice each', () => {
    expect(view.getUint16(46, true)).toBe(9);
    expect(view.getUint32(48, true)).toBe(0); // no SMI command
    expect([56, 64, 76, 80].map((at) => view.getUint32(at, true))).toEqual([0x600, 0x604, 0x608, 0x620]);
    expect([88, 89, 91, 92].map((at) => fadt[at])).toEqual([4, 2, 4, 8]);
    for (const [at, bits, port] of [
      [148, 32, 0x600],
      [172, 16, 0x604],
      [208, 32, 0x608],
      [220, 64, 0x620],
      [116, 8, 0xcf9],
    ] as const) {
      expect(fadt[at]).toBe(1); // system I/O
      expect(fadt[at + 1]).toBe(bits);
      expect(view.getBigUint64(at + 4, true)).toBe(BigInt(port));
    }
    expect(fadt[128]).toBe(6);
  });

  it('follows the hardware that it is told of', () => {
    const other = readTables({
      ...plain,
      fixedHardware: {
        ...defaultFixedHardware,
        gpe0: undefined,
        pmTimerBits: 24,
        powerButton: 'device',
        hasI8042: true,
        sleepTypeS5: 7,
      },
    });
    const otherView = viewOf(other.fadt);
    expect(otherView.getUint32(112, true)).toBe(0x475);
    expect(otherView.getUint16(109, true)).toBe(7);
    expect(view.getUint16(109, true)).toBe(5);
    expect(otherView.getUint32(80, true)).toBe(0);
    expect(other.dsdt[36 + 10]).toBe(7);
  });
});

describe('the MADT', () => {
  function entries(cpus: number): Uint8Array[] {
    const madt = readTables({ cpus, contributors: [] }).tables.get('APIC')!;
    expect(viewOf(madt).getUint32(36, true)).toBe(0xfee0_0000);
    expect(viewOf(madt).getUint32(40, true)).toBe(1);
    const list: Uint8Array[] = [];
    for (let at = 44; at < madt.length; at += madt[at + 1]!) list.push(madt.subarray(at, at + madt[at + 1]!));
    return list;
  }

  it('has the processors, the IO-APIC, IRQ 0 at pin 2, the SCI, and NMI at LINT1', () => {
    expect(entries(2).map((entry) => [...entry])).toEqual([
      [0, 8, 0, 0, 1, 0, 0, 0],
      [0, 8, 1, 1, 1, 0, 0, 0],
      [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
      [2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
      [2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0],
      [4, 6, 0xff, 0, 0, 1],
    ]);
  });

  it('changes to x2APIC entries above 254', () => {
    const list = entries(257);
    expect(list.filter((entry) => entry[0] === 0)).toHaveLength(255);
    const wide = list.filter((entry) => entry[0] === 9);
    expect(wide.map((entry) => viewOf(entry).getUint32(4, true))).toEqual([255, 256]);
    expect(list.filter((entry) => entry[0] === 10)).toHaveLength(1);
    expect(entries(255).some((entry) => entry[0] === 9)).toBe(false);
  });
});

describe('checksum', () => {
  it('makes the sum 0', () => {
    expect(checksum(Uint8Array.of(1, 2, 3))).toBe(250);
    expect(checksum(new Uint8Array(4))).toBe(0);
  });
});

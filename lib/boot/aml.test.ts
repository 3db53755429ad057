import { describe, expect, it } from 'vitest';
import * as aml from './aml.js';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
/** Hexadecimal text with blanks, and 'quoted' ASCII, as it is checked by hand against the specification. */
const bytes = (text: string): string =>
  text.replace(/'([^']*)'/g, (_, ascii: string) => Buffer.from(ascii, 'latin1').toString('hex')).replace(/\s+/g, '');

describe('data objects', () => {
  it('writes integers in their shortest form', () => {
    expect(hex(aml.integer(0))).toBe('00');
    expect(hex(aml.integer(1))).toBe('01');
    expect(hex(aml.integer(2))).toBe('0a02');
    expect(hex(aml.integer(255))).toBe('0aff');
    expect(hex(aml.integer(256))).toBe('0b0001');
    expect(hex(aml.integer(0x12345))).toBe('0c45230100');
    expect(hex(aml.integer(0x1_0000_0000))).toBe('0e0000000001000000');
    expect(hex(aml.integer(0xffff_ffff_ffff_ffffn))).toBe('ff');
  });

  it('refuses integers that AML cannot say', () => {
    expect(() => aml.integer(-1)).toThrow(RangeError);
    expect(() => aml.integer(1n << 64n)).toThrow(RangeError);
    expect(() => aml.integer(0.5)).toThrow(RangeError);
  });

  it('writes names of every shape', () => {
    expect(hex(aml.name('_HID'))).toBe(bytes("'_HID'"));
    expect(hex(aml.name('\\'))).toBe(bytes("'\\' 00"));
    expect(hex(aml.name('\\_SB'))).toBe(bytes("'\\_SB_'"));
    expect(hex(aml.name('\\_SB.PCI0'))).toBe(bytes("'\\' 2e '_SB_PCI0'"));
    expect(hex(aml.name('_SB.PCI0.COM1'))).toBe(bytes("2f 03 '_SB_PCI0COM1'"));
    expect(hex(aml.name('^^A'))).toBe(bytes("'^^A___'"));
  });

  it.each(['', 'lower', 'TOOLONG', '1ABC', 'A..B', 'A.', '\\^A', 'A\nB'])('refuses the name %j', (path) => {
    expect(() => aml.name(path)).toThrow(RangeError);
  });

  it('writes texts, buffers and packages', () => {
    expect(hex(aml.string('hi'))).toBe(bytes("0d 'hi' 00"));
    expect(() => aml.string('a\0b')).toThrow(RangeError);
    expect(() => aml.string('ü')).toThrow(RangeError);
    expect(hex(aml.buffer(Uint8Array.of(1, 2, 3)))).toBe('11060a03010203');
    expect(hex(aml.packageOp([5, 0]))).toBe('1205020a0500');
    expect(hex(aml.packageOp([]))).toBe('120200');
  });

  it('writes EISA ids as the specification prints them', () => {
    expect(hex(aml.eisaId('PNP0501'))).toBe(bytes('0c 41 d0 05 01'));
    expect(hex(aml.eisaId('PNP0A03'))).toBe(bytes('0c 41 d0 0a 03'));
    expect(() => aml.eisaId('QEMU0001')).toThrow(RangeError);
  });
});

describe('pkgLength', () => {
  it('changes form where its own length no longer fits', () => {
    expect(hex(aml.pkgLength(0))).toBe('01');
    expect(hex(aml.pkgLength(62))).toBe('3f');
    expect(hex(aml.pkgLength(63))).toBe('4104');
    expect(hex(aml.pkgLength(4093))).toBe('4fff');
    expect(hex(aml.pkgLength(4094))).toBe('810001');
    expect(() => aml.pkgLength(2 ** 28)).toThrow(RangeError);
  });

  it('covers itself and its content, whatever the size', () => {
    for (let size = 0; size < 5000; size++) {
      const coded = aml.pkgLength(size);
      const lead = coded[0] ?? 0;
      let value = coded.length === 1 ? lead : lead & 0xf;
      for (let index = 1; index < coded.length; index++) value += (coded[index] ?? 0) * 2 ** (8 * index - 4);
      expect(lead >> 6).toBe(coded.length - 1);
      expect(value).toBe(size + coded.length);
    }
  });
});

describe('terms', () => {
  it('writes named objects', () => {
    expect(hex(aml.nameDecl('_S5', aml.packageOp([5, 5, 0, 0])))).toBe(bytes("08 '_S5_' 12 08 04 0a05 0a05 00 00"));
    expect(hex(aml.scope('\\_SB', aml.device('COM1', aml.nameDecl('_UID', 1))))).toBe(
      bytes("10 13 '\\_SB_' 5b 82 0b 'COM1' 08 '_UID' 01"),
    );
    expect(hex(aml.method('_STA', {}, aml.returnOp(0xf)))).toBe(bytes("14 09 '_STA' 00 a4 0a0f"));
    expect(hex(aml.method('M', { args: 2, serialized: true }))).toBe(bytes("14 06 'M___' 0a"));
    expect(() => aml.method('M', { args: 8 })).toThrow(RangeError);
  });

  it('writes operation regions and fields', () => {
    expect(hex(aml.operationRegion('PEOR', 'SYSTEM_IO', 0x505, 1))).toBe(bytes("5b 80 'PEOR' 01 0b0505 01"));
    expect(
      hex(
        aml.field('PEOR', { access: 'BYTE', update: 'WRITE_AS_ZEROS', lock: true }, [
          { bits: 3 },
          { name: 'PEPT', bits: 8 },
          { bits: 64 },
        ]),
      ),
    ).toBe(bytes("5b 81 10 'PEOR' 51 00 03 'PEPT' 08 00 4004"));
    expect(() => aml.field('A', { access: 'ANY' }, [{ name: 'A.B', bits: 1 }])).toThrow(RangeError);
    expect(() => aml.field('A', { access: 'ANY' }, [{ bits: 2 ** 28 }])).toThrow(RangeError);
  });

  it('writes statements and expressions', () => {
    expect(hex(aml.ifOp(aml.equal(aml.arg(0), 1), aml.notify('\\_SB.PWRB', 0x80)))).toBe(
      bytes("a0 11 93 68 01 86 '\\' 2e '_SB_PWRB' 0a80"),
    );
    expect(hex(aml.elseOp(aml.returnOp(0)))).toBe('a103a400');
    expect(hex(aml.store(aml.name('A'), aml.local(0)))).toBe(bytes("70 'A___' 60"));
    expect(hex(aml.and(aml.local(1), 0xff))).toBe('7b610aff00');
    expect(hex(aml.shiftLeft(1, aml.arg(1), aml.local(2)))).toBe('79016962');
    expect(hex(aml.whileOp(aml.not(aml.less(aml.local(0), 3)), aml.add(aml.local(0), 1, aml.local(0))))).toBe(
      bytes('a2 0a 92 95 60 0a03 72 60 01 60'),
    );
    expect(hex(aml.call('\\M', 7, aml.string('')))).toBe(bytes("'\\M___' 0a07 0d 00"));
    expect(hex(aml.terms(aml.mutex('MTX', 1), aml.acquire('MTX'), aml.release('MTX')))).toBe(
      bytes("5b01 'MTX_' 01 5b23 'MTX_' ffff 5b27 'MTX_'"),
    );
    expect(() => aml.local(8)).toThrow(RangeError);
    expect(() => aml.arg(7)).toThrow(RangeError);
  });
});

describe('resources', () => {
  it('writes a template as the compiler does', () => {
    expect(hex(aml.resourceTemplate(aml.io(0x3f8, 8), aml.irqNoFlags(4)))).toBe(
      bytes('11 10 0a0d 47 01 f803 f803 01 08 22 1000 79 00'),
    );
  });

  it('writes single descriptors', () => {
    expect(hex(aml.irq({ trigger: 'level', polarity: 'low', shared: true }, 5, 10))).toBe(bytes('23 2004 18'));
    expect(hex(aml.irq({ trigger: 'edge', polarity: 'high' }, 1))).toBe(bytes('23 0200 01'));
    expect(hex(aml.interrupt({ trigger: 'level', polarity: 'low', shared: true }, 16))).toBe(
      bytes('89 0600 0d 01 10000000'),
    );
    expect(hex(aml.memory32Fixed(0xd0000000, 0x1000))).toBe(bytes('86 0900 01 000000d0 00100000'));
    expect(hex(aml.wordBusNumber({ first: 0, length: 256 }))).toBe(bytes('88 0d00 02 0c 00 0000 0000 ff00 0000 0001'));
    expect(hex(aml.dwordMemory({ first: 0xc0000000, length: 0x10000000 }))).toBe(
      bytes('87 1700 00 0c 01 00000000 000000c0 ffffffcf 00000000 00000010'),
    );
    expect(hex(aml.qwordMemory({ first: 1n << 40n, length: 1n << 30n }))).toBe(
      bytes('8a 2b00 00 0c 01') +
        bytes('0000000000000000 0000000000010000 ffffff3f00010000 0000000000000000 0000004000000000'),
    );
    expect(hex(aml.wordIo({ first: 0xd00, length: 0xf300 }))).toBe(bytes('88 0d00 01 0c 03 0000 000d ffff 0000 00f3'));
  });

  it('refuses what does not fit', () => {
    expect(() => aml.io(0x10000, 1)).toThrow(RangeError);
    expect(() => aml.irqNoFlags(16)).toThrow(RangeError);
    expect(() => aml.wordIo({ first: 0, length: 0 })).toThrow(RangeError);
    expect(() => aml.dwordMemory({ first: 0xffff0000, length: 0x20000 })).toThrow(RangeError);
  });
});

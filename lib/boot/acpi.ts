/**
 * The ACPI tables of a machine, put together and written where kernels look for them:
 *
 *   0xe0000 RSDP -> RSDT, XSDT -> FADT -> DSDT (what devices contribute, \_S5), FACS
 *                             \-> MADT (processors, IO-APIC, overrides), and tables of others
 *
 * The machine is a PC with legacy devices and PM1 registers, not hardware-reduced: Linux uses PIC and PIT only then.
 */
import { AcpiHeader, AcpiRsdp } from '../abi/acpi.js';
import { alignUp } from '../base/units.js';
import { VmmError } from '../base/errors.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { defaultFixedHardware, facs, fadt, madt, type FixedHardware } from './acpi-tables.js';
import { nameDecl, packageOp, terms } from './aml.js';
import { ascii, concatBytes, littleEndian } from './bytes.js';
import { LowMemory } from './layout.js';

/** A device that describes itself: terms that stand at the root of the DSDT, usually a scope('\\_SB', device(...)). */
export interface AcpiContributor {
  dsdt(): Uint8Array[];
}

/** A table of someone else's, without its header: MCFG for a PCI host bridge. */
export interface ExtraTable {
  /** Four characters. */
  readonly signature: string;
  readonly revision: number;
  readonly body: Uint8Array;
}

export interface AcpiOptions {
  /** Processors; their local APIC ids count from 0, as cpuidForVcpu says them too. */
  readonly cpus: number;
  readonly contributors: readonly AcpiContributor[];
  /** Default: the places of lib/abi/ports.ts. */
  readonly fixedHardware?: FixedHardware;
  readonly extraTables?: readonly ExtraTable[];
}

const OEM_ID = 'VIVARM';
const OEM_TABLE_ID = 'VIVARIUM';
const CREATOR_ID = 'VIVM';

/** The byte that makes the sum of `bytes` 0 modulo 256, when its own place holds 0. */
export function checksum(bytes: Uint8Array): number {
  return (0x100 - (bytes.reduce((sum, byte) => sum + byte, 0) & 0xff)) & 0xff;
}

/** A whole table: header, body, checksum. @throws RangeError when the signature is not four characters. */
export function table(signature: string, revision: number, body: Uint8Array): Uint8Array {
  if (signature.length !== 4) throw new RangeError(`'${signature}' is no signature of four characters`);
  const bytes = concatBytes(
    ascii(signature),
    littleEndian(AcpiHeader.SIZE + body.length, 4),
    [revision, 0],
    ascii(OEM_ID),
    ascii(OEM_TABLE_ID),
    littleEndian(1, 4),
    ascii(CREATOR_ID),
    littleEndian(1, 4),
    body,
  );
  bytes[AcpiHeader.CHECKSUM] = checksum(bytes);
  return bytes;
}

/** The DSDT: \_S5 and what the devices contribute. Revision 2 makes integers 64 bits wide. */
export function dsdt(contributors: readonly AcpiContributor[], sleepTypeS5: number): Uint8Array {
  const s5 = nameDecl('\\_S5', packageOp([sleepTypeS5, sleepTypeS5, 0, 0]));
  return table('DSDT', 2, terms(s5, ...contributors.flatMap((contributor) => contributor.dsdt())));
}

/** The RSDP of revision 2. */
export function rsdp(rsdtGpa: number, xsdtGpa: number): Uint8Array {
  const bytes = concatBytes(
    ascii('RSD PTR '),
    [0],
    ascii(OEM_ID),
    [2],
    littleEndian(rsdtGpa, 4),
    littleEndian(AcpiRsdp.SIZE, 4),
    littleEndian(xsdtGpa, 8),
    [0, 0, 0, 0],
  );
  bytes[AcpiRsdp.CHECKSUM] = checksum(bytes.subarray(0, AcpiRsdp.SIZE_REVISION_0));
  bytes[AcpiRsdp.EXTENDED_CHECKSUM] = checksum(bytes);
  return bytes;
}

/** Tables as they stand in memory from `baseGpa` on; the RSDP is first. */
export function layoutAcpi(options: AcpiOptions, baseGpa: number): Uint8Array {
  const placed: { at: number; bytes: Uint8Array }[] = [];
  let end = baseGpa + AcpiRsdp.SIZE;
  const place = (bytes: Uint8Array): number => {
    // The FACS wants 64 (5.2.10); for the others it does no harm.
    const at = alignUp(end, 64);
    placed.push({ at, bytes });
    end = at + bytes.length;
    return at;
  };
  const fixedHardware = options.fixedHardware ?? defaultFixedHardware;
  const apicIds = Array.from({ length: options.cpus }, (_, id) => id);
  const dsdtGpa = place(dsdt(options.contributors, fixedHardware.sleepTypeS5));
  const facsGpa = place(facs());
  const roots = [
    place(table('FACP', 6, fadt(fixedHardware, { dsdtGpa, facsGpa }))),
    place(table('APIC', 5, madt(apicIds, fixedHardware.sciGsi))),
    ...(options.extraTables ?? []).map((extra) => place(table(extra.signature, extra.revision, extra.body))),
  ];
  const rsdtGpa = place(table('RSDT', 1, concatBytes(...roots.map((gpa) => littleEndian(gpa, 4)))));
  const xsdtGpa = place(table('XSDT', 1, concatBytes(...roots.map((gpa) => littleEndian(gpa, 8)))));
  const all = new Uint8Array(end - baseGpa);
  all.set(rsdp(rsdtGpa, xsdtGpa));
  for (const { at, bytes } of placed) all.set(bytes, at - baseGpa);
  return all;
}

/**
 * Writes the tables into guest memory.
 *
 * @returns the address of the RSDP, for boot_params and PVH's start info.
 * @throws VmmError ERR_DEVICE when the devices' contributions are larger than the area for tables.
 */
export function buildAcpi(memory: GuestMemory, options: AcpiOptions): number {
  const bytes = layoutAcpi(options, LowMemory.ACPI_TABLES);
  const roomBytes = LowMemory.GENERATION_ID - LowMemory.ACPI_TABLES;
  if (bytes.length > roomBytes) {
    throw new VmmError('ERR_DEVICE', `the ACPI tables take ${bytes.length} bytes, and there is room for ${roomBytes}`);
  }
  memory.write(LowMemory.ACPI_TABLES, bytes);
  return LowMemory.ACPI_TABLES;
}

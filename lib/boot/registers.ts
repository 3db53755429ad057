/**
 * The state in which the first CPU starts, as plain data in the shape of KVM's own structures, and the descriptor and
 * page tables that belong to it. The machine writes it with KVM_SET_REGS and KVM_SET_SREGS; nothing here calls KVM.
 * Registers that an entry does not name are 0; further CPUs wait for INIT and SIPI and need nothing from here.
 */
import type { KvmRegs, KvmSegment, KvmSregs } from '../abi/kvm-structs.js';
import { Cr0, Cr4, Efer, PageEntry, Rflags, SegmentType } from '../abi/x86.js';
import type { GuestMemory } from '../memory/guest-memory.js';

/** The members of kvm_sregs that an entry decides; the rest (apic_base, cr8) stays as KVM has it. */
export type InitialSregs = Pick<
  KvmSregs,
  'cs' | 'ds' | 'es' | 'fs' | 'gs' | 'ss' | 'tr' | 'ldt' | 'gdt' | 'idt' | 'cr0' | 'cr2' | 'cr3' | 'cr4' | 'efer'
>;

/** Everything that KVM_SET_REGS wants, and what to merge into the result of KVM_GET_SREGS. */
export interface CpuState {
  readonly regs: KvmRegs;
  readonly sregs: InitialSregs;
}

/** General registers, all 0 but for those given. rflags always has its reserved bit. */
export function regs(values: Partial<KvmRegs>): KvmRegs {
  return {
    rax: 0n,
    rbx: 0n,
    rcx: 0n,
    rdx: 0n,
    rsi: 0n,
    rdi: 0n,
    rsp: 0n,
    rbp: 0n,
    r8: 0n,
    r9: 0n,
    r10: 0n,
    r11: 0n,
    r12: 0n,
    r13: 0n,
    r14: 0n,
    r15: 0n,
    rip: 0n,
    ...values,
    rflags: (values.rflags ?? 0n) | Rflags.RESERVED,
  };
}

function segment(values: Partial<KvmSegment>): KvmSegment {
  return {
    base: 0n,
    limit: 0xffff,
    selector: 0,
    type: SegmentType.DATA_READ_WRITE_ACCESSED,
    present: 1,
    dpl: 0,
    db: 0,
    s: 1,
    l: 0,
    g: 0,
    avl: 0,
    unusable: 0,
    padding: 0,
    ...values,
  };
}

const flat32 = { limit: 0xffff_ffff, g: 1 } as const;

/** Flat ring-0 segments of 4 GiB: `bits` 64 gives a code segment with L, 32 one with D. */
function flatSegments(bits: 32 | 64, codeSelector: number, dataSelector: number) {
  const cs = segment({
    ...flat32,
    selector: codeSelector,
    type: SegmentType.CODE_EXECUTE_READ_ACCESSED,
    db: bits === 32 ? 1 : 0,
    l: bits === 64 ? 1 : 0,
  });
  const data = segment({ ...flat32, selector: dataSelector, db: 1 });
  return { cs, ds: data, es: data, fs: data, gs: data, ss: data };
}

/** LDTR and TR as INIT leaves them (SDM 3A, table 9-1); Intel wants TR to be a busy TSS at every VM entry. */
const noLdt = segment({ type: SegmentType.LDT, s: 0 });
const noTask = segment({ type: SegmentType.TSS_BUSY, s: 0 });
const noTable = { base: 0n, limit: 0, padding: [0, 0, 0] };

/** A descriptor table register. */
export interface TableLocation {
  readonly gpa: number;
  readonly sizeBytes: number;
}

function tableRegister(table: TableLocation | undefined) {
  return table ? { base: BigInt(table.gpa), limit: table.sizeBytes - 1, padding: [0, 0, 0] } : noTable;
}

/** Real mode with every base and selector 0. */
export function real16State(values: Partial<KvmRegs>): CpuState {
  const data = segment({});
  const cs = segment({ type: SegmentType.CODE_EXECUTE_READ_ACCESSED });
  return {
    regs: regs(values),
    sregs: {
      cs,
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
      tr: noTask,
      ldt: noLdt,
      gdt: { base: 0n, limit: 0xffff, padding: [0, 0, 0] },
      idt: { base: 0n, limit: 0x3ff, padding: [0, 0, 0] },
      cr0: Cr0.ET,
      cr2: 0n,
      cr3: 0n,
      cr4: 0n,
      efer: 0n,
    },
  };
}

/** Protected mode, paging off, flat segments. Without a table the selectors can't be loaded again before lgdt. */
export function protected32State(
  values: Partial<KvmRegs>,
  selectors: { code: number; data: number },
  gdt?: TableLocation,
): CpuState {
  return {
    regs: regs(values),
    sregs: {
      ...flatSegments(32, selectors.code, selectors.data),
      tr: noTask,
      ldt: noLdt,
      gdt: tableRegister(gdt),
      idt: noTable,
      cr0: Cr0.PE | Cr0.ET,
      cr2: 0n,
      cr3: 0n,
      cr4: 0n,
      efer: 0n,
    },
  };
}

/** Long mode on the page tables at `pml4Gpa`. */
export function long64State(
  values: Partial<KvmRegs>,
  options: {
    readonly selectors: { readonly code: number; readonly data: number };
    readonly gdt: TableLocation;
    readonly pml4Gpa: number;
    /** A TSS in the table, for guests that go to ring 3. */
    readonly tss?: TableLocation & { readonly selector: number };
    /** CR4.OSFXSR and OSXMMEXCPT, CR0.MP. */
    readonly sse: boolean;
  },
): CpuState {
  const { selectors, tss } = options;
  return {
    regs: regs(values),
    sregs: {
      ...flatSegments(64, selectors.code, selectors.data),
      tr: tss
        ? segment({
            base: BigInt(tss.gpa),
            limit: tss.sizeBytes - 1,
            selector: tss.selector,
            type: SegmentType.TSS_BUSY,
            s: 0,
          })
        : noTask,
      ldt: noLdt,
      gdt: tableRegister(options.gdt),
      idt: noTable,
      cr0: Cr0.PE | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.PG | (options.sse ? Cr0.MP : 0n),
      cr2: 0n,
      cr3: BigInt(options.pml4Gpa),
      cr4: Cr4.PAE | (options.sse ? Cr4.OSFXSR | Cr4.OSXMMEXCPT : 0n),
      efer: Efer.LME | Efer.LMA,
    },
  };
}

/** Size of the tables of identityMap4GiB: a PML4, a PDPT and four page directories. */
export const IDENTITY_MAP_BYTES = 6 * 4096;

/**
 * Writes page tables at `gpa` that map the first 4 GiB onto themselves with 2 MiB pages. Accessed and dirty are set
 * beforehand, so that the CPU has nothing to write into them.
 */
export function writeIdentityMap4GiB(memory: GuestMemory, gpa: number, options: { user: boolean }): void {
  const flags =
    PageEntry.PRESENT |
    PageEntry.WRITABLE |
    PageEntry.ACCESSED |
    PageEntry.DIRTY |
    (options.user ? PageEntry.USER : 0n);
  const tables = new BigUint64Array(IDENTITY_MAP_BYTES / 8);
  const directory = flags & ~PageEntry.DIRTY;
  tables[0] = BigInt(gpa + 0x1000) | directory;
  for (let index = 0; index < 4; index++) tables[512 + index] = BigInt(gpa + 0x2000 + index * 0x1000) | directory;
  for (let index = 0; index < 4 * 512; index++) tables[1024 + index] = (BigInt(index) << 21n) | flags | PageEntry.LARGE;
  memory.write(gpa, new Uint8Array(tables.buffer));
}

/** A segment descriptor of eight bytes: base 0, or, for a TSS, the low half of sixteen (SDM 3A, 3.4.5 and 7.2.3). */
export function descriptor(values: {
  base?: number;
  limit: number;
  type: number;
  system?: boolean;
  dpl?: number;
  long?: boolean;
  db?: boolean;
  pageGranular?: boolean;
}): bigint {
  const base = BigInt(values.base ?? 0);
  const limit = BigInt(values.limit);
  const access = BigInt(values.type | (values.system === true ? 0 : 0x10) | ((values.dpl ?? 0) << 5) | 0x80);
  const flags = BigInt(
    (values.long === true ? 2 : 0) | (values.db === true ? 4 : 0) | (values.pageGranular === true ? 8 : 0),
  );
  return (
    (limit & 0xffffn) |
    ((base & 0xff_ffffn) << 16n) |
    (access << 40n) |
    (((limit >> 16n) & 0xfn) << 48n) |
    (flags << 52n) |
    (((base >> 24n) & 0xffn) << 56n)
  );
}

const { CODE_EXECUTE_READ_ACCESSED: CODE, DATA_READ_WRITE_ACCESSED: DATA } = SegmentType;

/** Flat descriptors; the accessed bit is set beforehand. */
export const flatCode32 = descriptor({ limit: 0xfffff, type: CODE, db: true, pageGranular: true });
export const flatData = (dpl = 0): bigint =>
  descriptor({ limit: 0xfffff, type: DATA, db: true, pageGranular: true, dpl });
export const flatCode64 = (dpl = 0): bigint =>
  descriptor({ limit: 0xfffff, type: CODE, long: true, pageGranular: true, dpl });

/** Writes a descriptor table; returns its place for GDTR. */
export function writeTable(memory: GuestMemory, gpa: number, entries: readonly bigint[]): TableLocation {
  const bytes = new Uint8Array(BigUint64Array.from(entries).buffer);
  memory.write(gpa, bytes);
  return { gpa, sizeBytes: bytes.length };
}

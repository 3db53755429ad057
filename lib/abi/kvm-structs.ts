/**
 * The structures of linux/kvm.h and asm/kvm.h (x86-64) that cross the border to the addon, field for field.
 * Names are the kernel's. Sizes are held against sizeof() in the addon by test/kvm/struct-sizes.test.ts.
 */
import { array, bytes, s64, struct, u16, u32, u64, u8, type FieldValue } from './layout.js';

/** General registers, KVM_GET_REGS. */
export const kvmRegs = struct('kvm_regs', {
  rax: u64,
  rbx: u64,
  rcx: u64,
  rdx: u64,
  rsi: u64,
  rdi: u64,
  rsp: u64,
  rbp: u64,
  r8: u64,
  r9: u64,
  r10: u64,
  r11: u64,
  r12: u64,
  r13: u64,
  r14: u64,
  r15: u64,
  rip: u64,
  rflags: u64,
});
export type KvmRegs = FieldValue<typeof kvmRegs>;

/** A segment register with its hidden part. `limit` is in bytes whatever `g` says. */
export const kvmSegment = struct('kvm_segment', {
  base: u64,
  limit: u32,
  selector: u16,
  type: u8,
  present: u8,
  dpl: u8,
  db: u8,
  s: u8,
  l: u8,
  g: u8,
  avl: u8,
  unusable: u8,
  padding: u8,
});
export type KvmSegment = FieldValue<typeof kvmSegment>;

export const kvmDtable = struct('kvm_dtable', { base: u64, limit: u16, padding: array(u16, 3) });
export type KvmDtable = FieldValue<typeof kvmDtable>;

const segmentFields = {
  cs: kvmSegment,
  ds: kvmSegment,
  es: kvmSegment,
  fs: kvmSegment,
  gs: kvmSegment,
  ss: kvmSegment,
  tr: kvmSegment,
  ldt: kvmSegment,
  gdt: kvmDtable,
  idt: kvmDtable,
  cr0: u64,
  cr2: u64,
  cr3: u64,
  cr4: u64,
  cr8: u64,
  efer: u64,
  apic_base: u64,
};

/** Special registers, KVM_GET_SREGS: for kernels without KVM_CAP_SREGS2 (before 5.14). */
export const kvmSregs = struct('kvm_sregs', { ...segmentFields, interrupt_bitmap: array(u64, 4) });
export type KvmSregs = FieldValue<typeof kvmSregs>;

/** Special registers with the PDPTEs, KVM_GET_SREGS2. */
export const kvmSregs2 = struct('kvm_sregs2', { ...segmentFields, flags: u64, pdptrs: array(u64, 4) });
export type KvmSregs2 = FieldValue<typeof kvmSregs2>;

export const kvmFpu = struct('kvm_fpu', {
  fpr: bytes(128),
  fcw: u16,
  fsw: u16,
  ftwx: u8,
  pad1: u8,
  last_opcode: u16,
  last_ip: u64,
  last_dp: u64,
  xmm: bytes(256),
  mxcsr: u32,
  pad2: u32,
});
export type KvmFpu = FieldValue<typeof kvmFpu>;

const kvmXcr = struct('kvm_xcr', { xcr: u32, reserved: u32, value: u64 });

export const kvmXcrs = struct('kvm_xcrs', {
  nr_xcrs: u32,
  flags: u32,
  xcrs: array(kvmXcr, 16),
  padding: array(u64, 16),
});
export type KvmXcrs = FieldValue<typeof kvmXcrs>;

export const kvmDebugregs = struct('kvm_debugregs', {
  db: array(u64, 4),
  dr6: u64,
  dr7: u64,
  flags: u64,
  reserved: array(u64, 9),
});
export type KvmDebugregs = FieldValue<typeof kvmDebugregs>;

/** Pending exceptions, interrupts, NMIs and SMIs, KVM_GET_VCPU_EVENTS. The nested structures are written flat. */
export const kvmVcpuEvents = struct('kvm_vcpu_events', {
  exception: struct('exception', { injected: u8, nr: u8, has_error_code: u8, pending: u8, error_code: u32 }),
  interrupt: struct('interrupt', { injected: u8, nr: u8, soft: u8, shadow: u8 }),
  nmi: struct('nmi', { injected: u8, pending: u8, masked: u8, pad: u8 }),
  sipi_vector: u32,
  flags: u32,
  smi: struct('smi', { smm: u8, pending: u8, smm_inside_nmi: u8, latched_init: u8 }),
  triple_fault: struct('triple_fault', { pending: u8 }),
  reserved: bytes(26),
  exception_has_payload: u8,
  exception_payload: u64,
});
export type KvmVcpuEvents = FieldValue<typeof kvmVcpuEvents>;

export const kvmMpState = struct('kvm_mp_state', { mp_state: u32 });

/** The local APIC's register page, KVM_GET_LAPIC. */
export const kvmLapicState = struct('kvm_lapic_state', { regs: bytes(1024) });
export type KvmLapicState = FieldValue<typeof kvmLapicState>;

export const kvmPitChannelState = struct('kvm_pit_channel_state', {
  /** Reload value, 1 to 65536. */
  count: u32,
  latched_count: u16,
  count_latched: u8,
  status_latched: u8,
  status: u8,
  read_state: u8,
  write_state: u8,
  write_latch: u8,
  rw_mode: u8,
  mode: u8,
  bcd: u8,
  gate: u8,
  /** Host monotonic ns at which the count was loaded. */
  count_load_time: s64,
});

export const kvmPitState2 = struct('kvm_pit_state2', {
  channels: array(kvmPitChannelState, 3),
  flags: u32,
  reserved: array(u32, 9),
});
export type KvmPitState2 = FieldValue<typeof kvmPitState2>;

export const kvmPitConfig = struct('kvm_pit_config', { flags: u32, pad: array(u32, 15) });
export const kvmReinjectControl = struct('kvm_reinject_control', { pit_reinject: u8, reserved: bytes(31) });

/** An interrupt controller's state, KVM_GET_IRQCHIP: chip 0 the master PIC, 1 the slave PIC, 2 the IO-APIC. */
export const kvmIrqchip = struct('kvm_irqchip', { chip_id: u32, pad: u32, chip: bytes(512) });
export type KvmIrqchip = FieldValue<typeof kvmIrqchip>;

export const kvmIrqLevel = struct('kvm_irq_level', { irq: u32, level: u32 });

export const kvmClockData = struct('kvm_clock_data', {
  /** kvmclock in ns. */
  clock: u64,
  flags: u32,
  pad0: u32,
  /** Host CLOCK_REALTIME in ns, when flags has KVM_CLOCK_REALTIME. */
  realtime: u64,
  host_tsc: u64,
  pad: array(u32, 4),
});
export type KvmClockData = FieldValue<typeof kvmClockData>;

export const kvmMsi = struct('kvm_msi', {
  address_lo: u32,
  address_hi: u32,
  data: u32,
  flags: u32,
  devid: u32,
  pad: bytes(12),
});

export const kvmTranslation = struct('kvm_translation', {
  linear_address: u64,
  physical_address: u64,
  valid: u8,
  writeable: u8,
  usermode: u8,
  pad: bytes(5),
});

export const kvmCoalescedMmioZone = struct('kvm_coalesced_mmio_zone', { addr: u64, size: u32, pio: u32 });

/** struct kvm_irq_routing_entry with the irqchip arm of its union. */
export const kvmIrqRoutingIrqchip = struct('kvm_irq_routing_entry', {
  gsi: u32,
  type: u32,
  flags: u32,
  pad: u32,
  irqchip: u32,
  pin: u32,
  reserved: bytes(24),
});

/** struct kvm_irq_routing_entry with the MSI arm of its union. */
export const kvmIrqRoutingMsi = struct('kvm_irq_routing_entry', {
  gsi: u32,
  type: u32,
  flags: u32,
  pad: u32,
  address_lo: u32,
  address_hi: u32,
  data: u32,
  devid: u32,
  reserved: bytes(16),
});

/** Every structure that an ioctl takes whole; the size test walks this list. */
export const kvmStructs = [
  kvmRegs,
  kvmSregs,
  kvmSregs2,
  kvmFpu,
  kvmXcrs,
  kvmDebugregs,
  kvmVcpuEvents,
  kvmMpState,
  kvmLapicState,
  kvmPitState2,
  kvmPitConfig,
  kvmReinjectControl,
  kvmIrqchip,
  kvmIrqLevel,
  kvmClockData,
  kvmMsi,
  kvmTranslation,
  kvmCoalescedMmioZone,
  kvmIrqRoutingIrqchip,
  kvmIrqRoutingMsi,
] as const;

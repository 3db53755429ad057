/**
 * Constants of linux/kvm.h and asm/kvm.h: capabilities, exit reasons, flags. Names are the kernel's without the KVM_ prefix
 * where the object says it. Each optional capability is probed before use; see Documentation/virt/kvm/api.rst.
 */

/** The only stable API version (api.rst, 4.1). */
export const KVM_API_VERSION = 12;

/** KVM_CAP_*. */
export const Cap = {
  IRQCHIP: 0,
  USER_MEMORY: 3,
  SET_TSS_ADDR: 4,
  EXT_CPUID: 7,
  NR_VCPUS: 9,
  NR_MEMSLOTS: 10,
  MP_STATE: 14,
  COALESCED_MMIO: 15,
  IRQFD: 32,
  PIT2: 33,
  SET_BOOT_CPU_ID: 34,
  PIT_STATE2: 35,
  IOEVENTFD: 36,
  IOEVENTFD_ANY_LENGTH: 122,
  SET_IDENTITY_MAP_ADDR: 37,
  ADJUST_CLOCK: 39,
  VCPU_EVENTS: 41,
  DEBUGREGS: 50,
  XSAVE: 55,
  XCRS: 56,
  TSC_CONTROL: 60,
  GET_TSC_KHZ: 61,
  MAX_VCPUS: 66,
  TSC_DEADLINE_TIMER: 72,
  KVMCLOCK_CTRL: 76,
  SIGNAL_MSI: 77,
  IRQFD_RESAMPLE: 82,
  IMMEDIATE_EXIT: 136,
  MAX_VCPU_ID: 128,
  X86_DISABLE_EXITS: 143,
  COALESCED_PIO: 162,
  MANUAL_DIRTY_LOG_PROTECT2: 168,
  SREGS2: 200,
  EXIT_ON_EMULATION_FAILURE: 204,
  BINARY_STATS_FD: 203,
  VM_TSC_CONTROL: 214,
  XSAVE2: 208,
  X2APIC_API: 129,
  VCPU_ATTRIBUTES: 127,
} as const;

/** KVM_EXIT_*. */
export const ExitReason = {
  UNKNOWN: 0,
  EXCEPTION: 1,
  IO: 2,
  HYPERCALL: 3,
  DEBUG: 4,
  HLT: 5,
  MMIO: 6,
  IRQ_WINDOW_OPEN: 7,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTR: 10,
  INTERNAL_ERROR: 17,
  SYSTEM_EVENT: 24,
  IOAPIC_EOI: 26,
  X86_RDMSR: 29,
  X86_WRMSR: 30,
  DIRTY_RING_FULL: 31,
} as const;

/** KVM_INTERNAL_ERROR_*. */
export const InternalError = { EMULATION: 1, SIMUL_EX: 2, DELIVERY_EV: 3, UNEXPECTED_EXIT_REASON: 4 } as const;

/** KVM_MP_STATE_*. */
export const MpState = { RUNNABLE: 0, UNINITIALIZED: 1, INIT_RECEIVED: 2, HALTED: 3, SIPI_RECEIVED: 4 } as const;

/** KVM_MEM_*. */
export const MemoryFlag = { LOG_DIRTY_PAGES: 1, READONLY: 2 } as const;

/** KVM_IRQCHIP_*. */
export const Irqchip = { PIC_MASTER: 0, PIC_SLAVE: 1, IOAPIC: 2 } as const;

/** KVM_IRQ_ROUTING_*. */
export const RoutingType = { IRQCHIP: 1, MSI: 2 } as const;

/** KVM_IRQFD_FLAG_*. */
export const IrqfdFlag = { DEASSIGN: 1, RESAMPLE: 2 } as const;

/** KVM_IOEVENTFD_FLAG_*. */
export const IoeventfdFlag = { DATAMATCH: 1, PIO: 2, DEASSIGN: 4 } as const;

/** KVM_CLOCK_*. */
export const ClockFlag = { TSC_STABLE: 2, REALTIME: 4, HOST_TSC: 8 } as const;

/** KVM_PIT_SPEAKER_DUMMY: the kernel answers port 0x61 too. */
export const PIT_SPEAKER_DUMMY = 1;

/** KVM_VCPU_TSC_CTRL / KVM_VCPU_TSC_OFFSET (Documentation/virt/kvm/devices/vcpu.rst, 4). */
export const VcpuTscCtrl = { GROUP: 0, OFFSET: 0 } as const;

/** Where KVM keeps the task state segment of real-mode emulation on Intel: three pages below 4 GiB (api.rst, 4.49). */
export const TSS_ADDRESS = 0xfffbd000;
/** The page of KVM's identity map on Intel, right below (api.rst, 4.50). */
export const IDENTITY_MAP_ADDRESS = 0xfffbc000;

/** Offsets into struct kvm_run. */
export const RunOffset = {
  IMMEDIATE_EXIT: 1,
  EXIT_REASON: 8,
  CR8: 16,
  APIC_BASE: 24,
  /** The union of exit descriptions. */
  UNION: 32,
} as const;

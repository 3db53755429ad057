/**
 * CPUID leaves and bits that a machine decides. Sources: Intel SDM volume 2A (CPUID), AMD APM volume 3 appendix E,
 * and for the leaves from 0x40000000 Documentation/virt/kvm/x86/cpuid.rst and asm/kvm_para.h.
 */

export const Leaf = {
  VENDOR: 0x0,
  FEATURES: 0x1,
  CACHE: 0x4,
  POWER: 0x6,
  EXTENDED_FEATURES: 0x7,
  PERFORMANCE: 0xa,
  TOPOLOGY: 0xb,
  XSAVE: 0xd,
  SGX: 0x12,
  TOPOLOGY_V2: 0x1f,
  HYPERVISOR: 0x4000_0000,
  KVM_FEATURES: 0x4000_0001,
  TIMING: 0x4000_0010,
  HYPERVISOR_END: 0x4fff_ffff,
  AMD_FEATURES: 0x8000_0001,
  AMD_POWER: 0x8000_0007,
  AMD_SIZES: 0x8000_0008,
  AMD_SVM: 0x8000_000a,
  AMD_CACHE: 0x8000_001d,
  AMD_TOPOLOGY: 0x8000_001e,
  AMD_FEATURES_2: 0x8000_0021,
  AMD_PERFORMANCE: 0x8000_0022,
} as const;

/** Leaf 1, ECX and EDX. */
export const FeatureEcx = {
  VMX: 1 << 5,
  PDCM: 1 << 15,
  X2APIC: 1 << 21,
  TSC_DEADLINE: 1 << 24,
  OSXSAVE: 1 << 27,
  HYPERVISOR: 1 << 31,
} as const;
/** Leaf 7, ECX: follows CR4. */
export const EXTENDED_ECX_OSPKE = 1 << 4;
export const FeatureEdx = { APIC: 1 << 9, HTT: 1 << 28 } as const;

/** Leaf 6, EAX: the APIC timer always runs. */
export const POWER_EAX_ARAT = 1 << 2;
/** Leaf 7, EBX. */
export const EXTENDED_EBX_SGX = 1 << 2;

/** Leaf 0x80000001, ECX. */
export const AmdFeatureEcx = { CMP_LEGACY: 1 << 1, SVM: 1 << 2, TOPOEXT: 1 << 22, PERFCTR_CORE: 1 << 23 } as const;

/** Level types of leaves 0xB and 0x1F, ECX bits 8 to 15. */
export const TopologyLevel = { INVALID: 0, SMT: 1, CORE: 2 } as const;

/** KVM's signature, "KVMKVMKVM" with three NULs: EBX, ECX, EDX of leaf 0x40000000. */
export const KVM_SIGNATURE = { ebx: 0x4b4d_564b, ecx: 0x564b_4d56, edx: 0x4d } as const;

/** Leaf 0x40000001, EAX, by bit. */
export const KvmFeature = {
  CLOCKSOURCE: 0,
  NOP_IO_DELAY: 1,
  CLOCKSOURCE2: 3,
  ASYNC_PF: 4,
  STEAL_TIME: 5,
  PV_EOI: 6,
  PV_UNHALT: 7,
  PV_TLB_FLUSH: 9,
  ASYNC_PF_VMEXIT: 10,
  PV_SEND_IPI: 11,
  POLL_CONTROL: 12,
  PV_SCHED_YIELD: 13,
  ASYNC_PF_INT: 14,
  MSI_EXT_DEST_ID: 15,
  HC_MAP_GPA_RANGE: 16,
  MIGRATION_CONTROL: 17,
  CLOCKSOURCE_STABLE: 24,
} as const;

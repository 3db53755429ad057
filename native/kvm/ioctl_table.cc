// Rows in the order of linux/kvm.h; Documentation/virt/kvm/api.rst describes each under its name.
#include "kvm/ioctl_table.h"

#include <linux/kvm.h>

#include <cstdint>

namespace vivarium {
namespace {

constexpr IoctlScope kVm = IoctlScope::kVm;
constexpr IoctlScope kVcpu = IoctlScope::kVcpu;

#define GET(scope, name, type) \
  { #name, scope, name, sizeof(type), false, false }
#define SELECT(scope, name, type) \
  { #name, scope, name, sizeof(type), false, true }
#define SET(scope, name, type) \
  { #name, scope, name, sizeof(type), true, false }

constexpr StructIoctl kStructIoctls[] = {
    SET(kVm, KVM_SET_IDENTITY_MAP_ADDR, uint64_t),
    SET(kVm, KVM_IRQ_LINE, kvm_irq_level),
    SET(kVm, KVM_IRQ_LINE_STATUS, kvm_irq_level),
    SELECT(kVm, KVM_GET_IRQCHIP, kvm_irqchip),
    SET(kVm, KVM_SET_IRQCHIP, kvm_irqchip),
    SET(kVm, KVM_REGISTER_COALESCED_MMIO, kvm_coalesced_mmio_zone),
    SET(kVm, KVM_UNREGISTER_COALESCED_MMIO, kvm_coalesced_mmio_zone),
    SET(kVm, KVM_REINJECT_CONTROL, kvm_reinject_control),
    SET(kVm, KVM_CREATE_PIT2, kvm_pit_config),
    GET(kVm, KVM_GET_PIT2, kvm_pit_state2),
    SET(kVm, KVM_SET_PIT2, kvm_pit_state2),
    GET(kVm, KVM_GET_CLOCK, kvm_clock_data),
    SET(kVm, KVM_SET_CLOCK, kvm_clock_data),
    SET(kVm, KVM_SIGNAL_MSI, kvm_msi),
    GET(kVcpu, KVM_GET_REGS, kvm_regs),
    SET(kVcpu, KVM_SET_REGS, kvm_regs),
    GET(kVcpu, KVM_GET_SREGS, kvm_sregs),
    SET(kVcpu, KVM_SET_SREGS, kvm_sregs),
    GET(kVcpu, KVM_GET_SREGS2, kvm_sregs2),
    SET(kVcpu, KVM_SET_SREGS2, kvm_sregs2),
    SET(kVcpu, KVM_TRANSLATE, kvm_translation),
    SET(kVcpu, KVM_INTERRUPT, kvm_interrupt),
    GET(kVcpu, KVM_GET_FPU, kvm_fpu),
    SET(kVcpu, KVM_SET_FPU, kvm_fpu),
    GET(kVcpu, KVM_GET_LAPIC, kvm_lapic_state),
    SET(kVcpu, KVM_SET_LAPIC, kvm_lapic_state),
    GET(kVcpu, KVM_GET_MP_STATE, kvm_mp_state),
    SET(kVcpu, KVM_SET_MP_STATE, kvm_mp_state),
    SET(kVcpu, KVM_SET_GUEST_DEBUG, kvm_guest_debug),
    SET(kVcpu, KVM_X86_SETUP_MCE, uint64_t),
    GET(kVcpu, KVM_GET_VCPU_EVENTS, kvm_vcpu_events),
    SET(kVcpu, KVM_SET_VCPU_EVENTS, kvm_vcpu_events),
    GET(kVcpu, KVM_GET_DEBUGREGS, kvm_debugregs),
    SET(kVcpu, KVM_SET_DEBUGREGS, kvm_debugregs),
    GET(kVcpu, KVM_GET_XCRS, kvm_xcrs),
    SET(kVcpu, KVM_SET_XCRS, kvm_xcrs),
};

#undef GET
#undef SELECT
#undef SET

constexpr ValueIoctl kValueIoctls[] = {
    {"KVM_SET_NR_MMU_PAGES", kVm, KVM_SET_NR_MMU_PAGES},
    {"KVM_SET_TSS_ADDR", kVm, KVM_SET_TSS_ADDR},
    {"KVM_CREATE_IRQCHIP", kVm, KVM_CREATE_IRQCHIP},
    {"KVM_SET_BOOT_CPU_ID", kVm, KVM_SET_BOOT_CPU_ID},
    {"KVM_SET_TSC_KHZ", kVm, KVM_SET_TSC_KHZ},
    {"KVM_GET_TSC_KHZ", kVm, KVM_GET_TSC_KHZ},
    {"KVM_NMI", kVcpu, KVM_NMI},
    {"KVM_SMI", kVcpu, KVM_SMI},
    {"KVM_SET_TSC_KHZ", kVcpu, KVM_SET_TSC_KHZ},
    {"KVM_GET_TSC_KHZ", kVcpu, KVM_GET_TSC_KHZ},
    {"KVM_KVMCLOCK_CTRL", kVcpu, KVM_KVMCLOCK_CTRL},
};

template <typename Row, size_t kRows>
const Row* find(const Row (&rows)[kRows], IoctlScope scope, std::string_view name) {
  for (const Row& row : rows) {
    if (row.scope == scope && name == row.name) return &row;
  }
  return nullptr;
}

}  // namespace

const StructIoctl* findStructIoctl(IoctlScope scope, std::string_view name) {
  return find(kStructIoctls, scope, name);
}

const ValueIoctl* findValueIoctl(IoctlScope scope, std::string_view name) {
  return find(kValueIoctls, scope, name);
}

}  // namespace vivarium

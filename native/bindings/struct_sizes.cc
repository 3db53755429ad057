// See struct_sizes.h.
#include "bindings/struct_sizes.h"

#include <linux/kvm.h>

#include "io/io_queue.h"
#include "snapshot/group_row.h"
#include "thread/posted_ring.h"
#include "thread/vcpu_runner.h"

namespace vivarium {

Napi::Object structSizes(Napi::Env env) {
  Napi::Object sizes = Napi::Object::New(env);
#define SIZE(name) sizes.Set(#name, static_cast<double>(sizeof(struct name)))
  SIZE(kvm_clock_data);
  SIZE(kvm_coalesced_mmio);
  SIZE(kvm_coalesced_mmio_zone);
  SIZE(kvm_cpuid_entry2);
  SIZE(kvm_debugregs);
  SIZE(kvm_dtable);
  SIZE(kvm_fpu);
  SIZE(kvm_guest_debug);
  SIZE(kvm_interrupt);
  SIZE(kvm_irq_level);
  SIZE(kvm_irq_routing_entry);
  SIZE(kvm_irqchip);
  SIZE(kvm_lapic_state);
  SIZE(kvm_mp_state);
  SIZE(kvm_msi);
  SIZE(kvm_msr_entry);
  SIZE(kvm_pit_channel_state);
  SIZE(kvm_pit_config);
  SIZE(kvm_pit_state2);
  SIZE(kvm_regs);
  SIZE(kvm_reinject_control);
  SIZE(kvm_run);
  SIZE(kvm_segment);
  SIZE(kvm_sregs);
  SIZE(kvm_sregs2);
  SIZE(kvm_translation);
  SIZE(kvm_vcpu_events);
  SIZE(kvm_xcr);
  SIZE(kvm_xcrs);
#undef SIZE
  sizes.Set("IoArea", static_cast<double>(IoArea::kBytes));
  sizes.Set("IoCompletion", static_cast<double>(sizeof(IoCompletion)));
  sizes.Set("IoPiece", static_cast<double>(sizeof(IoPiece)));
  sizes.Set("GroupRow", static_cast<double>(sizeof(GroupRow)));
  sizes.Set("IoRecord", static_cast<double>(sizeof(IoRecord)));
  sizes.Set("PostedEntry", static_cast<double>(sizeof(PostedEntry)));
  sizes.Set("VcpuControl", static_cast<double>(sizeof(VcpuControl)));
  return sizes;
}

}  // namespace vivarium

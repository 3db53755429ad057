// Field by field as arch/x86/kvm/i8254.c uses struct kvm_pit_channel_state.
#include "kvm/pit.h"

#include "core/failure.h"

namespace vivarium {
namespace {

// Before the first control word of the guest's a channel has mode 0xff.
constexpr uint8_t kLastMode = 5;
constexpr uint8_t kBetweenTwoBytes = 4;  // RW_STATE_WORD1

// 65536 cycles of 1193182 Hz, rounded up: no count of the guest's takes longer to run out.
constexpr uint64_t kLongestCountNs = 54'926'000;

}  // namespace

PitState::PitState(int vmFd) {
  ioctlChecked(vmFd, KVM_GET_PIT2, &state_, "KVM_GET_PIT2");
}

PitReading PitState::reading() const {
  const kvm_pit_channel_state& channel = state_.channels[0];
  if (channel.mode > kLastMode) return PitReading{{0, channel.write_latch}, 0, false};
  return PitReading{{channel.count, channel.write_latch}, channel.mode, channel.write_state == kBetweenTwoBytes};
}

bool PitState::measuring(uint64_t nowNs) const {
  const kvm_pit_channel_state& channel = state_.channels[2];
  const bool oneShot = channel.mode <= kLastMode && channel.mode != 2 && channel.mode != 3;
  if (!oneShot || channel.gate == 0) return false;
  // ktime_get(), which is CLOCK_MONOTONIC. A time that is still to come was set by user space.
  const auto loadedNs = static_cast<uint64_t>(channel.count_load_time);
  return loadedNs <= nowNs && nowNs - loadedNs < kLongestCountNs;
}

void PitState::setWith(const PitLoad& load, int vmFd) {
  state_.channels[0].count = load.count;
  state_.channels[0].write_latch = load.latch;
  ioctlChecked(vmFd, KVM_SET_PIT2, &state_, "KVM_SET_PIT2");
}

void setPitReinject(int vmFd, bool on) {
  kvm_reinject_control control{};
  control.pit_reinject = on ? 1 : 0;
  ioctlChecked(vmFd, KVM_REINJECT_CONTROL, &control, "KVM_REINJECT_CONTROL");
}

}  // namespace vivarium

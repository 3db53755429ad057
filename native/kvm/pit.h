// The kernel's PIT as its steering sees and changes it: KVM_GET_PIT2, KVM_SET_PIT2 and KVM_REINJECT_CONTROL.
// Whoever changes it must know that no vCPU runs; thread/pit_steering does.
#pragma once

#include <linux/kvm.h>

#include <cstdint>

namespace vivarium {

// Channel 0: what it counts from, and the mark in its write latch (see lib/time/pit-port.ts).
struct PitLoad {
  uint32_t count;
  uint8_t latch;
};

struct PitReading {
  PitLoad load;
  uint8_t mode;   // 0 to 5
  bool midWrite;  // the guest is between the two bytes of a reload
};

// The state that KVM_GET_PIT2 gave.
class PitState {
 public:
  explicit PitState(int vmFd);

  // A channel that was never programmed reads as count 0, mode 0.
  PitReading reading() const;
  // Whether a load would disturb a one-shot count that the guest may be measuring with channel 2.
  bool measuring(uint64_t nowNs) const;
  // KVM_SET_PIT2 with another load of channel 0 and all else as it was. The kernel loads every channel anew.
  void setWith(const PitLoad& load, int vmFd);

 private:
  kvm_pit_state2 state_{};
};

void setPitReinject(int vmFd, bool on);

}  // namespace vivarium

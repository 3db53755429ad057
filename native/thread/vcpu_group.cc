// A vCPU that is added during a hold finds the gate shut when its thread starts, so the list is looked at once.
#include "thread/vcpu_group.h"

#include <algorithm>

namespace vivarium {

void VcpuGroup::add(std::shared_ptr<VcpuRunner> runner) {
  const std::lock_guard lock(mutex_);
  list_.push_back(std::move(runner));
}

bool VcpuGroup::anyActive() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(list_, [](const auto& runner) {
    return runner->state() == VcpuState::kRunning || runner->state() == VcpuState::kExit;
  });
}

std::vector<uint64_t> VcpuGroup::cpuNs() const {
  std::vector<uint64_t> all;
  const std::lock_guard lock(mutex_);
  all.reserve(list_.size());
  for (const auto& runner : list_) all.push_back(runner->threadCpuNs());
  return all;
}

void VcpuGroup::requestStop() const {
  const std::lock_guard lock(mutex_);
  for (const auto& runner : list_) runner->requestStop();
}

std::vector<std::shared_ptr<VcpuRunner>> VcpuGroup::takeAll() {
  std::vector<std::shared_ptr<VcpuRunner>> all;
  const std::lock_guard lock(mutex_);
  all.swap(list_);
  return all;
}

bool VcpuGroup::hold(uint64_t deadlineNs) {
  gate_->shut();
  std::vector<std::shared_ptr<VcpuRunner>> inside;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& runner : list_) {
      if (runner->insideRun()) inside.push_back(runner);
    }
  }
  for (const auto& runner : inside) runner->interruptRun();
  const bool held = gate_->waitUntil(deadlineNs, [&inside] {
    return std::ranges::none_of(inside, [](const auto& runner) { return runner->insideRun(); });
  });
  if (!held) gate_->open();
  return held;
}

void VcpuGroup::condemn() const {
  gate_->condemn();
  const std::lock_guard lock(mutex_);
  for (const auto& runner : list_) runner->interruptRun();
}

}  // namespace vivarium

// The end of a machine: stop, join, close descriptors, let memory go. Views are detached by the bindings before.
#include "thread/machine.h"

#include <linux/kvm.h>

#include "core/failure.h"

namespace vivarium {

Machine::Machine(std::shared_ptr<Runtime> runtime, Fd fd, size_t vcpuMmapBytes)
    : runtime_(std::move(runtime)),
      vcpuMmapBytes_(vcpuMmapBytes),
      vm_(std::make_shared<Vm>(runtime_->counters, std::move(fd))),
      posted_(std::make_shared<PostedRing>(runtime_->counters, runtime_->ready)),
      runners_(std::make_shared<Runners>()) {}

Machine::~Machine() {
  beginClose();
  finishClose();
}

void Machine::checkOpen() const {
  if (closed()) throwClosed("vm");
}

std::shared_ptr<VcpuRunner> Machine::createVcpu(uint32_t id, const std::string& threadName) {
  auto vcpu = std::make_unique<Vcpu>(runtime_->counters, vm_->fd(), id, vcpuMmapBytes_);
  // KVM_CHECK_EXTENSION gives the page of the coalesced ring within the mapping of any vCPU.
  const int coalescedPage = vm_->checkExtension(KVM_CAP_COALESCED_MMIO);
  if (coalescedPage > 0) posted_->attachCoalesced(vcpu->mapping(), static_cast<size_t>(coalescedPage) * 4096);
  auto runner = std::make_shared<VcpuRunner>(runtime_->counters, runtime_->ready, posted_, runtime_->spinNs,
                                             std::move(vcpu), threadName);
  const std::lock_guard lock(runners_->mutex);
  if (runners_->list.empty()) runtime_->events->addTimer(posted_);
  runners_->list.push_back(runner);
  return runner;
}

void Machine::zoneRegistered() {
  posted_->zonesInUse();
  runtime_->events->addRing(posted_, [runners = runners_] {
    const std::lock_guard lock(runners->mutex);
    for (const auto& runner : runners->list) {
      if (runner->state() == VcpuState::kRunning || runner->state() == VcpuState::kExit) return true;
    }
    return false;
  });
}

void Machine::runs() {
  if (posted_->hasZones()) runtime_->events->machineRuns();
}

void Machine::beginClose() {
  if (closed_.exchange(true, std::memory_order_acq_rel)) return;
  const std::lock_guard lock(runners_->mutex);
  for (const auto& runner : runners_->list) runner->requestStop();
}

void Machine::finishClose() {
  const std::lock_guard lock(closeMutex_);
  std::vector<std::shared_ptr<VcpuRunner>> runners;
  {
    const std::lock_guard runnersLock(runners_->mutex);
    runners.swap(runners_->list);
  }
  for (const auto& runner : runners) runner->join();
  for (const auto& runner : runners) {
    runner->source()->retire();
    runner->closeVcpu();
  }
  posted_->source()->retire();
  vm_->close();
}

}  // namespace vivarium
